//! Runs a program to its end, or to a deadline.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Longer than any correct runtime needs; a hang is reported as a failure with a name.
pub(crate) fn patience() -> Duration {
    *PATIENCE.get_or_init(|| Duration::from_secs(20))
}

/// Sets it, once, for a machine that is slower than others.
pub(crate) fn be_patient(seconds: u64) {
    let _ = PATIENCE.set(Duration::from_secs(seconds));
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit status as a shell reports it: 128 more than the signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Fails unless the program succeeded.
    pub(crate) fn ok(self) -> Result<Output> {
        if self.success() {
            return Ok(self);
        }
        bail!("exit status {}: {}{}", self.code(), self.stderr.trim(), self.stdout.trim());
    }

    /// Standard output without the last newline.
    pub(crate) fn text(&self) -> &str {
        self.stdout.trim_end()
    }
}

/// Waits for a child, at most until the deadline.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("process id")?;
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            bail!("still running after {} s", patience.as_secs());
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timespec(left)?))?;
    }
}

pub(crate) fn timespec(duration: Duration) -> Result<Timespec> {
    Ok(Timespec { tv_sec: i64::try_from(duration.as_secs())?, tv_nsec: duration.subsec_nanos().into() })
}

/// Runs `command`. Output goes through files: a container that outlives the command would hold a pipe open.
pub(crate) fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    run_within(command, input, patience())
}

/// As [`run`], with its own deadline.
pub(crate) fn run_within(command: &mut Command, input: Option<&str>, patience: Duration) -> Result<Output> {
    run_by(command, input, |child| wait(child, patience))
}

/// As [`run`]; `wait` sees to the child's end.
pub(crate) fn run_by(
    command: &mut Command,
    input: Option<&str>,
    wait: impl FnOnce(&mut Child) -> Result<ExitStatus>,
) -> Result<Output> {
    let mut stdout = tempfile::tempfile()?;
    let mut stderr = tempfile::tempfile()?;
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    match input {
        None => command.stdin(Stdio::null()),
        Some(text) => {
            let mut file = tempfile::tempfile()?;
            file.write_all(text.as_bytes())?;
            file.rewind()?;
            command.stdin(file)
        }
    };
    let mut child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let status = wait(&mut child);
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    match status {
        Ok(status) => Ok(Output { status, stdout, stderr }),
        Err(error) => {
            let arguments: Vec<_> = command.get_args().collect();
            Err(error.context(format!("{:?} {arguments:?}: {}", command.get_program(), stderr.trim())))
        }
    }
}

fn read(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
