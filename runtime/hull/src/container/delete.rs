//! Deleting containers and sending them signals.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::processes;
use super::store::{Entry, Journal, Stage, State, Status};
use crate::cgroup::{self, Cgroup};
use crate::error::{Code, Error, Result};
use crate::hooks;
use crate::log::{self, Level};
use crate::spec::Spec;
use crate::time::Deadline;

/// SIGKILL.
const KILL: i32 = 9;

/// How long a killed container may take to end.
const KILL_MS: u32 = 10_000;

/// What a deletion found and removed, for the log.
#[derive(Debug, Default)]
struct Undone {
    /// Whether the runtime that created it did not finish.
    interrupted: bool,
    killed: Vec<i32>,
    cgroups: Vec<String>,
    records: String,
}

impl Undone {
    /// Notes the directories that are there. systemd takes those of a unit away when its last process has ended.
    fn note(&mut self, cgroup: &Cgroup) {
        if self.cgroups.is_empty() {
            self.cgroups = cgroup.v1.iter().chain(&cgroup.v2).map(|d| d.path.clone()).collect();
        }
    }

    /// An ordinary deletion is of no interest; that a runtime was killed midway is worth a warning.
    fn tell(&self, id: &str) {
        let level = if self.interrupted { Level::Warning } else { Level::Info };
        if log::enabled(level) {
            log::write(level, &self.text(id), None);
        }
    }

    fn text(&self, id: &str) -> String {
        let mut parts = Vec::new();
        if self.interrupted {
            parts.push("its creation was interrupted".to_owned());
        }
        if !self.killed.is_empty() {
            let pids: Vec<String> = self.killed.iter().map(ToString::to_string).collect();
            parts.push(format!("killed processes {}", pids.join(", ")));
        }
        if !self.cgroups.is_empty() {
            parts.push(format!("removed cgroups {}", self.cgroups.join(", ")));
        }
        parts.push(format!("removed records {}", self.records));
        format!("container {id}: {}", parts.join("; "))
    }
}

/// Deletes a container; with `force`, kills it first and accepts one that does not exist.
pub(crate) fn delete(root: &str, id: &str, force: bool) -> Result<()> {
    let entry = match Entry::open(root, id) {
        Ok(entry) => entry,
        Err(error) if force && error.code() == Code::NotFound => {
            log::info(&format!("container {id} does not exist: there was nothing to delete"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    entry.lock()?;
    let mut undone = Undone { records: entry.path.clone(), ..Undone::default() };
    let state = match entry.journal()? {
        Journal::Missing if force => {
            entry.remove()?;
            undone.interrupted = true;
            undone.tell(id);
            return Ok(());
        }
        Journal::Damaged(reason) if force => {
            log::warn(&format!("{reason}: removing what the configuration of {id} tells of, without poststop hooks"));
            clean_up(&entry, &super::damaged::journal(&entry)?, &mut undone)?;
            undone.tell(id);
            return Ok(());
        }
        journal => journal.state(&entry)?,
    };
    match state.status(&entry) {
        // The process of an interrupted creation may wait for its start.
        Status::Stopped if state.running() => kill_and_wait(&state, &mut undone)?,
        Status::Stopped => {}
        _ if force => kill_and_wait(&state, &mut undone)?,
        Status::Created => kill_and_wait(&state, &mut undone)?,
        status => {
            let text = format!("cannot delete container {id} that is not stopped: {}", status.as_str());
            return Err(Error::new(Code::WrongState, id).says(text).hint("stop it, or use --force"));
        }
    }
    undone.interrupted = state.stage == Stage::Creating;
    clean_up(&entry, &state, &mut undone)?;
    undone.tell(id);
    Ok(())
}

/// Undoes what the journal says was made.
pub(crate) fn clean(entry: &Entry, state: &State) -> Result<()> {
    clean_up(entry, state, &mut Undone::default())
}

fn clean_up(entry: &Entry, state: &State, undone: &mut Undone) -> Result<()> {
    let cgroup = Cgroup::open(&state.cgroup);
    undone.note(&cgroup);
    let mut tries = 0..3;
    loop {
        kill_left(&cgroup, &entry.id, undone)?;
        match cgroup.remove_all() {
            // The process that a killed runtime has just made may enter cgroups until it sees that it is alone.
            Err(error) if error.errno() == Some(Errno::BUSY) && tries.next().is_some() => {}
            other => {
                // Before its creation was complete, the journal has the unit's name alone.
                if other? && undone.cgroups.is_empty() {
                    undone.cgroups.extend(cgroup.unit);
                }
                break;
            }
        }
    }
    if let Some(path) = &state.intel_rdt {
        super::intel_rdt::remove(path);
    }
    let spec = entry.config();
    entry.remove()?;
    // Hooks are told the bundle, which a damaged journal does not know.
    if let Ok(spec) = spec
        && !state.bundle.is_empty()
    {
        poststop(&spec, &entry.id, &state.bundle);
    }
    Ok(())
}

/// Ends what is still inside: without a PID namespace of its own, the first process' end leaves others behind.
fn kill_left(cgroup: &Cgroup, id: &str, undone: &mut Undone) -> Result<()> {
    let left = cgroup.processes().unwrap_or_default();
    if left.is_empty() {
        return Ok(());
    }
    cgroup.kill_all()?;
    cgroup.thaw().ok();
    if !cgroup.wait_empty(KILL_MS)? {
        let pids: Vec<String> = cgroup.processes()?.iter().map(ToString::to_string).collect();
        let text = format!("processes {} of {id} do not end", pids.join(", "));
        return Err(Error::new(Code::Timeout, id).says(text));
    }
    undone.killed.extend(left);
    Ok(())
}

/// The same for a container whose process was just waited for: usually nothing is left to look for.
pub(crate) fn clean_ended(entry: &Entry, state: &State, spec: &Spec) -> Result<()> {
    if !cgroup::remove_empty(&state.cgroup) {
        return clean(entry, state);
    }
    if let Some(path) = &state.intel_rdt {
        super::intel_rdt::remove(path);
    }
    entry.remove()?;
    poststop(spec, &entry.id, &state.bundle);
    Ok(())
}

/// The container is gone: hooks that fail are logged, and do not keep the others from running.
pub(super) fn poststop(spec: &Spec, id: &str, bundle: &str) {
    let Some(h) = spec.hooks.as_ref().filter(|h| !h.poststop.is_empty()) else { return };
    let json = super::state::json_for_hooks(spec, id, bundle, "stopped", 0);
    hooks::run_all("poststop", &h.poststop, &json, Some(bundle));
}

fn kill_and_wait(state: &State, undone: &mut Undone) -> Result<()> {
    let cgroup = Cgroup::open(&state.cgroup);
    undone.note(&cgroup);
    let pidfd = match open(state) {
        Ok(pidfd) => Some(pidfd),
        // It has ended, perhaps just now.
        Err(error) if error.code() == Code::WrongState => None,
        Err(error) => return Err(error),
    };
    if let Some(pidfd) = &pidfd {
        signal_fd(pidfd, KILL)?;
        undone.killed.push(state.pid);
    }
    // The end of a stopped first process takes its PID namespace along; with a shared one, everything in the cgroup must be killed.
    cgroup.kill_all().or_else(|e| if pidfd.is_some() { Ok(()) } else { Err(e) })?;
    // A frozen process does not die in version 1.
    let _ = cgroup.thaw();
    if let Some(pidfd) = pidfd {
        let deadline = Deadline::after_ms(KILL_MS);
        loop {
            let Some(left) = deadline.left() else {
                return Err(Error::new(Code::Timeout, state.id.as_str())
                    .says(format!("process {} does not end after SIGKILL", state.pid))
                    .hint("it is in an uninterruptible system call: look at /proc/<pid>/stack"));
            };
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(e) => return Err(Error::os(Code::Signal, "pidfd", e)),
            }
        }
    }
    Ok(())
}

/// A pidfd of the container's process, checked to be that process. [`Code::WrongState`] when it has ended.
pub(crate) fn open(state: &State) -> Result<OwnedFd> {
    let gone = || Error::new(Code::WrongState, state.id.as_str()).says("container not running");
    let pid = Pid::from_raw(state.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
        // INVAL: a thread of another process has the number now.
        Errno::SRCH | Errno::INVAL => gone(),
        errno => Error::os(Code::Signal, "pidfd", errno),
    })?;
    // Checked after opening: if it is still the same process, the handle is that process'.
    if state.running() { Ok(pidfd) } else { Err(gone()) }
}

fn signal_fd(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match hull_sys::signal::send_by_pidfd(pidfd.as_fd(), signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(Error::os(Code::Signal, "pidfd", e).says("the container's process")),
    }
}

/// Kills the container's first process.
pub(super) fn kill_first(state: &State) -> Result<()> {
    signal_fd(&open(state)?, KILL)
}

/// Sends a signal to the container's process, or to all of them.
pub(crate) fn kill(root: &str, id: &str, signal: i32, all: bool) -> Result<()> {
    let entry = Entry::open(root, id)?;
    let state = entry.state()?;
    if all {
        return processes::signal(&entry, &state, signal);
    }
    let not_running = || Error::new(Code::WrongState, id).says("container not running");
    let status = state.status(&entry);
    if status == Status::Creating {
        return Err(not_running());
    }
    let cgroup = Cgroup::open(&state.cgroup);
    // Without a PID namespace that ends with its first process, the others would live on: SIGKILL goes to all of them.
    let others = signal == KILL && !processes::own_pids(&entry.config()?) && !cgroup.processes()?.is_empty();
    if others {
        cgroup.kill_all()?;
    }
    match open(&state).map(|pidfd| hull_sys::signal::send_by_pidfd(pidfd.as_fd(), signal)) {
        Ok(Ok(())) => {}
        Ok(Err(Errno::SRCH)) | Err(_) if others => {}
        Ok(Err(Errno::SRCH)) | Err(_) => return Err(not_running()),
        Ok(Err(e)) => return Err(Error::os(Code::Signal, id, e)),
    }
    if signal == KILL && status == Status::Paused {
        cgroup.thaw()?;
    }
    Ok(())
}
