//! The agent's side: starting a monitor, and finding it again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::report::{Failure, Phase, Started};
use super::{EXIT_FILE, MONITOR_FILE, Spec};
use crate::identity::IdentityError;
use crate::message::MessageError;
use crate::{Identity, message, persist};

/// Content of `monitor.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorInfo {
    /// The monitor.
    pub monitor: Identity,
    /// The container's id.
    pub container_id: String,
    /// The container's first process, in the host's pid namespace; `None` until it is created.
    pub container_pid: Option<u32>,
}

/// Content of `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the container ended.
    pub outcome: Outcome,
    /// Whether the kernel killed a process of the container for memory, at any time of its life.
    pub oom_killed: bool,
    /// Unix time in milliseconds.
    pub finished_at_ms: u64,
}

impl Exit {
    pub(super) fn new(outcome: Outcome, oom_killed: bool, finished_at_ms: u64) -> Self {
        Self { outcome, oom_killed, finished_at_ms }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its first process returned this status.
    Code(i32),
    /// Its first process was killed by this signal.
    Signal(i32),
    /// It never ran.
    NotStarted(Failure),
    /// Nobody saw it: the monitor was killed, or the machine went down.
    Unknown,
}

/// A monitor cannot be started, found or asked.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The program does not run.
    #[error("the monitor {} cannot be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Talking to it failed.
    #[error("the monitor of container {container} cannot be reached")]
    Message {
        /// The container.
        container: String,
        /// Why.
        #[source]
        source: MessageError,
    },
    /// It cannot be identified.
    #[error("a monitor cannot be identified")]
    Identity(#[from] IdentityError),
    /// The container did not start.
    #[error("the container {container} did not start")]
    NotStarted {
        /// The container.
        container: String,
        /// Why.
        #[source]
        failure: Failure,
    },
    /// No answer in time.
    #[error("the monitor of container {container} said nothing in {timeout:?}")]
    Timeout {
        /// The container.
        container: String,
        /// How long.
        timeout: Duration,
    },
    /// A state file cannot be read.
    #[error("the state of a container in {} cannot be read", dir.display())]
    State {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call on its pidfd failed.
    #[error("the monitor of container {container} cannot be waited for or signalled")]
    Pidfd {
        /// The container.
        container: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A monitor that was started or found again. Dropping it changes nothing for the container.
#[derive(Debug)]
pub struct MonitorHandle {
    dir: PathBuf,
    container: String,
    pidfd: OwnedFd,
    /// When this process started it, it is its parent and must reap it.
    child: Option<Child>,
    report: Option<OwnedFd>,
}

/// Starts a monitor with `program` (`berth-init`), which at once creates and starts the container. `listener` becomes descriptor 3 of the
/// container's first process. Follow with [`MonitorHandle::wait_started`].
pub fn spawn(program: &Path, spec: &Spec, listener: BorrowedFd<'_>) -> Result<MonitorHandle, MonitorError> {
    let container = spec.container_id.clone();
    // Files of an earlier container in this directory would be mistaken for this one's.
    for name in [EXIT_FILE, MONITOR_FILE] {
        match std::fs::remove_file(spec.state_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(MonitorError::State { dir: spec.state_dir.clone(), source: error });
            }
            _ => {}
        }
    }
    let message = |source| MonitorError::Message { container: container.clone(), source };
    let (ours, theirs) = message::pair().map_err(message)?;
    message::send(&ours, spec, &[listener]).map_err(message)?;
    let child = Command::new(program)
        .arg("monitor")
        .arg(&spec.container_id)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .spawn()
        .map_err(|source| MonitorError::Spawn { program: program.to_owned(), source })?;
    let identity = Identity::of(child.id())?;
    let pidfd = identity
        .open()?
        .ok_or_else(|| MonitorError::Message { container: spec.container_id.clone(), source: MessageError::Closed })?;
    Ok(MonitorHandle { dir: spec.state_dir.clone(), container, pidfd, child: Some(child), report: Some(ours) })
}

/// Finds the monitor whose state directory is `dir`, if it lives in this boot. When there is none, [`exit`](MonitorHandle::exit_in) tells how
/// the container ended.
pub fn adopt(dir: &Path) -> Result<Option<MonitorHandle>, MonitorError> {
    let Some(info) = MonitorHandle::info_in(dir)? else { return Ok(None) };
    let Some(pidfd) = info.monitor.open()? else { return Ok(None) };
    Ok(Some(MonitorHandle { dir: dir.to_owned(), container: info.container_id, pidfd, child: None, report: None }))
}

impl MonitorHandle {
    /// Reads `monitor.json` in `dir`; `None` if there is none.
    pub fn info_in(dir: &Path) -> Result<Option<MonitorInfo>, MonitorError> {
        persist::read(dir, MONITOR_FILE).map_err(|source| MonitorError::State { dir: dir.to_owned(), source })
    }

    /// How the container of `dir` ended, once no monitor lives there: from `exit.json`, or [`Outcome::Unknown`].
    pub fn exit_in(dir: &Path, now_ms: u64) -> Result<Exit, MonitorError> {
        let exit =
            persist::read(dir, EXIT_FILE).map_err(|source| MonitorError::State { dir: dir.to_owned(), source })?;
        Ok(exit.unwrap_or(Exit { outcome: Outcome::Unknown, oom_killed: false, finished_at_ms: now_ms }))
    }

    /// Readable when the monitor has ended: for `AsyncFd` or poll.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.dir
    }

    /// Reads `monitor.json`.
    pub fn info(&self) -> Result<Option<MonitorInfo>, MonitorError> {
        Self::info_in(&self.dir)
    }

    /// Blocks until the container runs or has failed to. For a monitor that this process started, once. `on_created` is called in between
    /// with the pid of the container's first process (its program does not run yet).
    pub fn wait_started(
        &mut self,
        timeout: Duration,
        mut on_created: impl FnMut(u32),
    ) -> Result<Started, MonitorError> {
        let report = self.report.take();
        let container = &self.container;
        let message = |source| MonitorError::Message { container: container.clone(), source };
        let report = report.ok_or_else(|| message(MessageError::Closed))?;
        loop {
            if !readable(report.as_fd(), Some(timeout)).map_err(|error| message(error.into()))? {
                return Err(MonitorError::Timeout { container: container.clone(), timeout });
            }
            match message::receive::<Phase>(&report).map_err(message)?.0 {
                Phase::Created { container_pid, .. } => on_created(container_pid),
                Phase::Started(started) => return Ok(started),
                Phase::Failed(failure) => {
                    return Err(MonitorError::NotStarted { container: container.clone(), failure });
                }
            }
        }
    }

    /// How the container ended; `None` while its monitor lives. Reaps the monitor if it is this process's child.
    pub fn try_exit(&mut self, now_ms: u64) -> Result<Option<Exit>, MonitorError> {
        let pidfd = |source| MonitorError::Pidfd { container: self.container.clone(), source };
        if !readable(self.pidfd.as_fd(), Some(Duration::ZERO)).map_err(|errno| pidfd(errno.into()))? {
            return Ok(None);
        }
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(pidfd)?;
        }
        Self::exit_in(&self.dir, now_ms).map(Some)
    }

    /// Blocks until the container has ended, at most `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration, now_ms: impl FnOnce() -> u64) -> Result<Option<Exit>, MonitorError> {
        readable(self.pidfd.as_fd(), Some(timeout))
            .map_err(|errno| MonitorError::Pidfd { container: self.container.clone(), source: errno.into() })?;
        self.try_exit(now_ms())
    }

    /// Ends a monitor whose container did not start, and reaps it if it is this process's child. The runtime that it was running ends with
    /// it: nothing is created afterwards.
    pub fn end(mut self) -> Result<(), MonitorError> {
        self.kill_monitor()?;
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(|source| MonitorError::Pidfd { container: self.container.clone(), source })?;
        }
        Ok(())
    }

    /// Kills the monitor itself. The container lives on, without anyone to see its end: only for tests and for cleaning up.
    pub fn kill_monitor(&self) -> Result<(), MonitorError> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(MonitorError::Pidfd { container: self.container.clone(), source: errno.into() }),
        }
    }
}

fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool, rustix::io::Errno> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
