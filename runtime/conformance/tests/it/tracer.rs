//! Runs a command and kills one of its processes before its n-th system call.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hull_sys::ptrace::{self, Event, FOLLOW_NEW, KILL_ON_EXIT, REPORT_EXEC, Resume};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const SIGSTOP: i32 = 19;
const SIGTRAP: i32 = 5;

/// Longer than any command takes, traced on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose system calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The command itself.
    Command,
    /// The processes it makes, until they become other programs.
    Children,
    /// A process that runs already, until it becomes another program.
    Other(i32),
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Chase {
    /// Number of the system call before which the victim was killed; `None` when it did not make that many.
    pub(crate) killed_before: Option<u64>,
    /// How many calls were counted.
    pub(crate) calls: u32,
    /// How the command ended.
    pub(crate) end: Event,
}

struct Tracer {
    command: i32,
    victim: Victim,
    moment: u32,
    calls: u32,
    killed_before: Option<u64>,
    /// Followed processes, without the command.
    followed: BTreeSet<i32>,
}

/// Runs `command` to its end; the victim is killed before system call number `moment`, counted from 1.
pub(crate) fn kill_before(command: &mut Command, victim: Victim, moment: u32) -> Result<Chase> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !matches!(victim, Victim::Other(_)) {
        ptrace::trace_from_exec(command);
    }
    let mut followed = BTreeSet::new();
    if let Victim::Other(pid) = victim {
        ptrace::seize(pid, FOLLOW_NEW | REPORT_EXEC | KILL_ON_EXIT).context("seize")?;
        ptrace::interrupt(pid)?;
        followed.insert(pid);
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id())?;
    let mut tracer = Tracer { command: pid, victim, moment, calls: 0, killed_before: None, followed };
    let (done, over) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            kill(pid);
        }
        late
    });
    let end = tracer.follow(child);
    drop(done);
    let late = watch.join().unwrap_or(true);
    let end = end?;
    if late {
        bail!("the command hung (call {} of its victim, number {:?})", tracer.calls, tracer.killed_before);
    }
    Ok(Chase { killed_before: tracer.killed_before, calls: tracer.calls, end })
}

fn kill(pid: i32) {
    // One that is gone meanwhile needs no signal.
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

/// A process that was killed meanwhile cannot go on.
fn unless_gone(result: Result<(), Errno>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Tracer {
    /// Follows until the command has ended, then lets go of what is left.
    fn follow(&mut self, child: Child) -> Result<Event> {
        if !matches!(self.victim, Victim::Other(_)) {
            let first = ptrace::wait()?;
            anyhow::ensure!(first == Some((self.command, Event::Signal(SIGTRAP))), "{first:?} instead of the execve");
            let follow = if self.victim == Victim::Command { 0 } else { FOLLOW_NEW };
            ptrace::set_options(self.command, follow | REPORT_EXEC | KILL_ON_EXIT)?;
            let how = if self.victim == Victim::Command { Resume::Syscall } else { Resume::Run };
            ptrace::resume(self.command, how, 0)?;
        }
        let end = loop {
            let Some((pid, event)) = ptrace::wait()? else { bail!("the command is lost") };
            let ended = matches!(event, Event::Exited(_) | Event::Killed(_));
            if pid != self.command {
                self.of_follower(pid, event)?;
            } else if ended {
                break event;
            } else {
                self.of_command(event)?;
            }
        };
        // Waited for already, not by the library.
        drop(child);
        self.let_go()?;
        Ok(end)
    }

    fn of_command(&mut self, event: Event) -> Result<()> {
        let how = if self.victim == Victim::Command { Resume::Syscall } else { Resume::Run };
        let signal = match event {
            Event::Signal(signal) => signal,
            Event::Syscall if self.victim == Victim::Command => {
                self.count(self.command)?;
                0
            }
            _ => 0,
        };
        unless_gone(ptrace::resume(self.command, how, signal))
    }

    fn of_follower(&mut self, pid: i32, event: Event) -> Result<()> {
        let new = self.followed.insert(pid);
        let (how, signal) = match event {
            Event::Exited(_) | Event::Killed(_) => {
                self.followed.remove(&pid);
                return Ok(());
            }
            Event::Exec => {
                self.followed.remove(&pid);
                (Resume::Detach, 0)
            }
            Event::Syscall => {
                self.count(pid)?;
                (Resume::Syscall, 0)
            }
            // Its first moment.
            Event::Signal(SIGSTOP) if new => (Resume::Syscall, 0),
            Event::Signal(signal) => (Resume::Syscall, signal),
            Event::New | Event::Stop => (Resume::Syscall, 0),
        };
        unless_gone(ptrace::resume(pid, how, signal))
    }

    fn count(&mut self, pid: i32) -> Result<()> {
        let number = match ptrace::entered_syscall(pid) {
            Ok(Some(call)) => call.number,
            Ok(None) | Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.calls += 1;
        if self.calls == self.moment {
            self.killed_before = Some(number);
            kill(pid);
        }
        Ok(())
    }

    /// Processes that outlive the command run on by themselves.
    fn let_go(&mut self) -> Result<()> {
        for pid in &self.followed {
            let _ = Pid::from_raw(*pid).map(|pid| kill_process(pid, Signal::STOP));
        }
        while !self.followed.is_empty() {
            let Some((pid, event)) = ptrace::wait()? else { break };
            match event {
                Event::Exited(_) | Event::Killed(_) => {
                    self.followed.remove(&pid);
                }
                Event::Signal(SIGSTOP) => {
                    self.followed.remove(&pid);
                    unless_gone(ptrace::resume(pid, Resume::Detach, 0))?;
                }
                Event::Signal(signal) => unless_gone(ptrace::resume(pid, Resume::Run, signal))?,
                _ => unless_gone(ptrace::resume(pid, Resume::Run, 0))?,
            }
        }
        Ok(())
    }
}
