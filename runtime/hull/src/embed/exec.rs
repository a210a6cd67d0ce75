//! A further process in a container, by a runtime of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Container, logged, logged_error};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::Process;

/// A further process in the making.
///
/// ```no_run
/// use std::io::Read;
/// use hull::spec::Process;
///
/// let container = hull::Runtime::new("/usr/bin/hull").container("web");
/// let process = Process { args: vec!["/bin/hostname".into()], cwd: "/".into(), ..Process::default() };
/// let (mut output, end) = std::io::pipe().unwrap();
/// let executing = container.exec(process).stdout(end.into()).spawn()?;
/// let mut name = String::new();
/// output.read_to_string(&mut name).unwrap();
/// assert_eq!(executing.wait()?, 0);
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct Exec {
    container: Container,
    process: Process,
    streams: [Option<OwnedFd>; 3],
    console_socket: Option<PathBuf>,
}

impl Exec {
    pub(super) fn new(container: Container, process: Process) -> Self {
        Self { container, process, streams: [None, None, None], console_socket: None }
    }

    standard_streams!(r#"hull::Runtime::new("/usr/bin/hull").container("web").exec(Default::default())"#, "spawn");

    /// Unix socket that gets the terminal's master, for a process with a terminal.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let shell = hull::spec::Process {
    ///     args: vec!["/bin/sh".into()], cwd: "/".into(), terminal: true, ..Default::default()
    /// };
    /// runtime.container("web").exec(shell).console_socket("/run/my-program/console.sock").spawn()?.wait()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    #[must_use]
    pub fn console_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.console_socket = Some(path.into());
        self
    }

    /// Starts it.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let process = hull::spec::Process { args: vec!["/bin/date".into()], cwd: "/".into(), ..Default::default() };
    /// let executing = runtime.container("web").exec(process).spawn()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn spawn(self) -> Result<Executing> {
        let file = rustix::fs::memfd_create("process", MemfdFlags::CLOEXEC).context(Code::Internal, "process")?;
        let bytes =
            serde_json::to_vec(&self.process).map_err(|e| Error::new(Code::Internal, "process").says(e.to_string()))?;
        files::write_all(&file, &bytes).context(Code::Internal, "process")?;
        let runtime = &self.container.runtime;
        let (mut command, log) = runtime.command()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let [stdin, stdout, stderr] = self.streams.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
        command.args(["exec", "--process", &path]);
        if let Some(path) = &self.console_socket {
            command.arg("--console-socket").arg(path);
        }
        command.arg(&self.container.id).stdin(stdin).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().map_err(|e| runtime.not_started(&e))?;
        let pidfd = handle_of(&child).inspect_err(|_| {
            // Nobody could wait for it.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Executing { child, pidfd, log, _process: file })
    }
}

/// A handle of a child that has not been waited for: its number cannot have been given to another process.
fn handle_of(child: &Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pidfd_open(pid.ok_or_else(|| Error::new(Code::Internal, "pid").says("no process id"))?, PidfdFlags::empty())
        .context(Code::Internal, "pidfd")
}

/// A further process that was started.
///
/// ```no_run
/// use hull::{Code, spec::Process};
///
/// let container = hull::Runtime::new("/usr/bin/hull").container("web");
/// let process = Process { args: vec!["/bin/check".into()], cwd: "/".into(), ..Process::default() };
/// match container.exec(process).spawn()?.wait() {
///     Ok(status) => println!("it ended with {status}"),
///     Err(error) if error.code() == Code::Exec => println!("there is no {}", error.object()),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct Executing {
    child: Child,
    pidfd: OwnedFd,
    log: OwnedFd,
    /// The runtime reads it in its own time.
    _process: OwnedFd,
}

impl Executing {
    /// The runtime's process in the foreground: it ends with the container's process, and passes signals on to it.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("{}", runtime.container("web").exec(Default::default()).spawn()?.id());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Becomes readable at the end: what async code waits for, before [`Executing::wait`].
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// let executing = runtime.container("web").exec(Default::default()).spawn()?;
    /// let ended = poll(&mut [PollFd::new(&executing.pidfd(), PollFlags::IN)], None).is_ok();
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end; gives the exit code, or 128 plus the signal.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// assert_eq!(runtime.container("web").exec(Default::default()).spawn()?.wait()?, 0);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn wait(mut self) -> Result<i32> {
        let status = self.child.wait().map_err(|e| Error::of_io(Code::Internal, "wait", &e))?;
        match status.code() {
            // The runtime's own failure is told by its log, so that a program's 255 stays a program's.
            Some(255) => logged_error(&self.log).map_or(Ok(255), Err),
            Some(code) => Ok(code),
            None => Err(logged(&self.log, status)),
        }
    }
}
