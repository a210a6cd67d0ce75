//! A further process in a container, by a runtime of its own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Stdio};

use rustix::fs::MemfdFlags;

use super::{Container, logged};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::Process;

/// A further process in the making.
#[derive(Debug)]
pub struct Exec {
    container: Container,
    process: Process,
    streams: [Option<OwnedFd>; 3],
}

impl Exec {
    pub(super) fn new(container: Container, process: Process) -> Self {
        Self { container, process, streams: [None, None, None] }
    }

    standard_streams!(r#"hull::Runtime::new("/usr/bin/hull").container("web").exec(Default::default())"#, "spawn");

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
        let bytes = serde_json::to_vec(&self.process).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        files::write_all(&file, &bytes).context(Code::Internal, "process")?;
        let runtime = &self.container.runtime;
        let (mut command, log) = runtime.command()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let [stdin, stdout, stderr] = self.streams.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
        command.args(["exec", "--process", &path, &self.container.id]).stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(|e| runtime.not_started(&e))?;
        Ok(Executing { child, log, _process: file })
    }
}

/// A further process that was started.
#[derive(Debug)]
pub struct Executing {
    child: Child,
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

    /// Waits for the end; gives the exit code, or 128 plus the signal.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// assert_eq!(runtime.container("web").exec(Default::default()).spawn()?.wait()?, 0);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn wait(mut self) -> Result<i32> {
        let status = self.child.wait().map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        // The runtime's own failure is told by its log, so that a program's 255 stays a program's.
        let failed = rustix::fs::fstat(&self.log).is_ok_and(|s| s.st_size > 0);
        match status.code() {
            Some(255) if failed => Err(logged(&self.log, status)),
            Some(code) => Ok(code),
            None => Err(logged(&self.log, status)),
        }
    }
}
