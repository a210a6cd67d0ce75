//! Children of PID 1: those it started, and the orphans of the workspace.

use berth_supervisor_protocol::{ErrorCode, ExitStatus};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use super::poller::Watched;
use super::timers::Timer;
use super::unit::Part;
use super::{HANGUP_GRACE, Init};
use crate::launch::LaunchError;

/// What a child was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Exec(u64),
    Terminal(u64),
    Unit(String, Part),
    /// With the connection it serves.
    Worker(u64),
    /// Nobody waits for it.
    Orphan,
}

/// A child that PID 1 started.
#[derive(Debug)]
pub(super) struct Child {
    role: Role,
    /// Until the program has been executed.
    status: Option<Watched>,
    /// What was read from it: the JSON of a [`LaunchError`], cut if it is too long.
    said: Vec<u8>,
    hung_up: bool,
}

impl Child {
    pub(super) fn new(role: Role, status: Watched) -> Self {
        Self { role, status: Some(status), said: Vec::new(), hung_up: false }
    }
}

/// Longest launch error.
const MAX_SAID: usize = 16 * 1024;

impl Init {
    /// A child has executed its program, or says why it could not.
    pub(super) fn launch_status_ready(&mut self, pid: u64) {
        let Some(pid) = i32::try_from(pid).ok() else { return };
        let Some(child) = self.children.get_mut(&pid) else { return };
        let Some(status) = &child.status else { return };
        match status.read(self.buffer.get_mut(..4096).unwrap_or_default()) {
            None => {}
            Some(0) => self.launch_over(pid),
            Some(count) if child.said.len() < MAX_SAID => {
                child.said.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
            }
            Some(_) => {}
        }
    }

    /// Tells the part that asked for the child how its start went, exactly once.
    fn launch_over(&mut self, pid: i32) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        if child.status.take().is_none() {
            return;
        }
        let said = std::mem::take(&mut child.said);
        let result = if said.is_empty() {
            Ok(())
        } else {
            Err(serde_json::from_slice(&said).unwrap_or_else(|_| LaunchError {
                code: ErrorCode::Failed,
                message: "the program could not be started".to_owned(),
            }))
        };
        let role = child.role.clone();
        if result.is_err() && !matches!(role, Role::Unit(..)) {
            child.role = Role::Orphan;
        }
        match role {
            Role::Exec(id) => self.exec_launched(id, result),
            Role::Terminal(id) => self.terminal_launched(id, result),
            Role::Unit(id, part) => self.unit_launched(&id, part, result),
            Role::Worker(connection) => self.worker_launched(connection, result),
            Role::Orphan => {}
        }
    }

    /// Takes in everyone who has ended.
    pub(super) fn reap(&mut self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let status = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => ExitStatus::Code(code),
                        (None, Some(signal)) => ExitStatus::Signal(signal),
                        (None, None) => continue,
                    };
                    self.ended(pid, status);
                }
                Ok(None) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.childless = true;
                    break;
                }
            }
        }
        self.ports.nudge(&mut self.timers);
        if self.stop_commands_are_over() {
            self.shutdown_step();
        }
    }

    fn ended(&mut self, pid: Pid, status: ExitStatus) {
        let raw = pid.as_raw_nonzero().get();
        // The end of the status pipe may be noticed after the child's: the start is reported first.
        while self.children.get(&raw).is_some_and(|child| child.status.is_some()) {
            let before = self.children.get(&raw).map_or(0, |child| child.said.len());
            self.launch_status_ready(u64::from(raw.unsigned_abs()));
            if self.children.get(&raw).map_or(0, |child| child.said.len()) == before {
                self.launch_over(raw);
            }
        }
        let Some(child) = self.children.remove(&raw) else { return };
        if child.hung_up {
            // The number still belongs to its group as long as anyone is in the group; whoever that is got the same hangup.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        match child.role {
            Role::Exec(id) => self.exec_exited(id, status),
            Role::Terminal(id) => self.terminal_exited(id, status),
            Role::Unit(id, part) => self.unit_exited(&id, part, pid, status),
            Role::Worker(_) | Role::Orphan => {}
        }
    }

    /// Sends SIGHUP to a child's process group, which then has some seconds to end by itself.
    pub(super) fn hang_up(&mut self, pid: Pid) {
        for signal in [Signal::HUP, Signal::TERM, Signal::CONT] {
            let _ = kill_process_group(pid, signal);
        }
        let raw = pid.as_raw_nonzero().get();
        if let Some(child) = self.children.get_mut(&raw) {
            child.hung_up = true;
            self.timers.after(HANGUP_GRACE, Timer::KillChild(raw));
        }
    }

    /// Kills the process group of a child that has not followed its hangup.
    pub(super) fn kill_child(&mut self, pid: i32) {
        if let (Some(child), Some(pid)) = (self.children.get(&pid), Pid::from_raw(pid))
            && child.hung_up
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
