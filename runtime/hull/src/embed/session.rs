//! Processes started again and again in one container, without a new runtime for each.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Container, logged, null};
use crate::container::session::LARGEST_REQUEST;
use crate::container::sync::{self, Message};
use crate::error::{Code, Context, Error, Result};
use crate::socket;
use crate::spec::Process;

/// A runtime that stays at a container's door, for programs that are run there every few seconds such as health checks.
///
/// It may be used from several threads at once. When it is dropped, processes that were started run on; the runtime ends
/// with the last of them, or with the container.
///
/// ```no_run
/// use hull::{Runtime, spec::Process};
///
/// let container = Runtime::new("/usr/bin/hull").container("web");
/// let session = container.exec_session()?;
/// let check = Process { args: vec!["/bin/check".into()], cwd: "/".into(), ..Process::default() };
/// for _ in 0..3 {
///     let status = session.exec(check.clone()).spawn()?.wait()?;
///     assert_eq!(status, 0);
/// }
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct ExecSession {
    /// The other end is the runtime's.
    requests: OwnedFd,
    /// The container's id.
    id: String,
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(Code::Socket, "session")
}

impl ExecSession {
    pub(super) fn open(container: &Container) -> Result<Self> {
        let (ours, theirs) = pair()?;
        let (mut command, log) = container.runtime.command()?;
        command.args(["exec", "--session", &container.id]).stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(|e| container.runtime.not_started(&e))?;
        // The command holds a copy of the runtime's end: as long as it exists, the end of the runtime would not be noticed.
        drop(command);
        if !status.success() {
            return Err(logged(&log, status));
        }
        match sync::receive(&ours)? {
            Message::Ready => Ok(Self { requests: ours, id: container.id.clone() }),
            Message::Failed(error) => Err(error),
            _ => Err(over(container.id.as_str())),
        }
    }

    /// Begins a process.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// let (mut output, end) = std::io::pipe().unwrap();
    /// let process = hull::spec::Process { args: vec!["/bin/date".into()], cwd: "/".into(), ..Default::default() };
    /// session.exec(process).stdout(end.into()).spawn()?.wait()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn exec(&self, process: Process) -> SessionExec<'_> {
        SessionExec { session: self, process, streams: [None, None, None] }
    }
}

/// A process of a session in the making.
///
/// ```no_run
/// let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
/// let check = hull::spec::Process { args: vec!["/bin/check".into()], cwd: "/".into(), ..Default::default() };
/// // Without streams, the program has the null device.
/// let process = session.exec(check).spawn()?;
/// assert_eq!(process.wait()?, 0);
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct SessionExec<'a> {
    session: &'a ExecSession,
    process: Process,
    streams: [Option<OwnedFd>; 3],
}

impl SessionExec<'_> {
    standard_streams!(
        r#"hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?.exec(Default::default())"#,
        "spawn"
    );

    /// Starts it; when this returns, the program runs.
    ///
    /// # Errors
    /// What kept it from running, such as [`Code::Exec`] for a program that is not there, and [`Code::WrongState`] when
    /// the container has ended or is paused.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// let process = hull::spec::Process { args: vec!["/bin/true".into()], cwd: "/".into(), ..Default::default() };
    /// assert_eq!(session.exec(process).spawn()?.wait()?, 0);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn spawn(self) -> Result<SessionProcess> {
        let request =
            serde_json::to_vec(&self.process).map_err(|e| Error::new(Code::Internal, "process").says(e.to_string()))?;
        if request.len() > LARGEST_REQUEST {
            return Err(Error::invalid("process", format!("process: more than {LARGEST_REQUEST} bytes")));
        }
        let (ours, theirs) = pair()?;
        let [stdin, stdout, stderr] = self.streams;
        let streams = [stdin.map_or_else(null, Ok)?, stdout.map_or_else(null, Ok)?, stderr.map_or_else(null, Ok)?];
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(&theirs).chain(&streams).map(AsFd::as_fd).collect();
        socket::send_with_fds(&self.session.requests, &request, &fds).map_err(|_| over(self.session.id.as_str()))?;
        drop((theirs, streams));
        match sync::receive(&ours)? {
            Message::Init { pid, pidfd } => Ok(SessionProcess { pid, pidfd, answers: ours }),
            Message::Failed(error) => Err(error),
            _ => Err(over(self.session.id.as_str())),
        }
    }
}

fn over(object: impl Into<String>) -> Error {
    let error = Error::new(Code::WrongState, object).says("the session is over");
    error.hint("the container has ended, or the runtime was killed")
}

/// A process that was started in a session.
///
/// ```no_run
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
/// let check = hull::spec::Process { args: vec!["/bin/check".into()], cwd: "/".into(), ..Default::default() };
/// let process = session.exec(check).spawn()?;
/// // A check has five seconds.
/// let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
/// if poll(&mut [PollFd::new(&process.pidfd(), PollFlags::IN)], Some(&patience)) == Ok(0) {
///     process.signal(9)?;
/// }
/// println!("{}", process.wait()?);
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct SessionProcess {
    pid: i32,
    pidfd: OwnedFd,
    answers: OwnedFd,
}

impl SessionProcess {
    /// Its process id, outside of the container.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// assert!(session.exec(Default::default()).spawn()?.pid() > 1);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the process ends: what async code waits for.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// use std::os::fd::AsRawFd;
    /// println!("{}", session.exec(Default::default()).spawn()?.pidfd().as_raw_fd());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// [`Code::WrongState`] when it has ended.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// session.exec(Default::default()).spawn()?.signal(9)?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn signal(&self, signal: i32) -> Result<()> {
        match hull_sys::signal::send_by_pidfd(self.pidfd.as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => {
                Err(Error::new(Code::WrongState, self.pid.to_string()).says("the process has ended"))
            }
            Err(e) => Err(Error::os(Code::Signal, self.pid.to_string(), e)),
        }
    }

    /// Waits for the end; gives the exit code, or 128 plus the signal.
    ///
    /// # Errors
    /// [`Code::WrongState`] when the runtime was killed, so that nobody knows.
    ///
    /// ```no_run
    /// # let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// let status = session.exec(Default::default()).spawn()?.wait()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn wait(self) -> Result<i32> {
        match sync::receive(&self.answers)? {
            Message::Exit(status) => Ok(status),
            _ => Err(over(self.pid.to_string())),
        }
    }
}
