//! A program on a terminal, timed from its exec to what it prints.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::time::Timespec;

/// A program that has a terminal.
#[derive(Debug)]
pub(crate) struct OnTerminal {
    child: Child,
    terminal: File,
    started: Instant,
    seen: String,
}

impl OnTerminal {
    /// Starts `command` with a terminal of its own.
    pub(crate) fn spawn(command: &Command) -> anyhow::Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = ptsname(&terminal, Vec::new())?;
        let slave = || std::fs::OpenOptions::new().read(true).write(true).open(name.to_string_lossy().as_ref());
        // setsid makes the terminal the controlling one; it execs in place.
        let mut on_terminal = Command::new("setsid");
        on_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => on_terminal.env(key, value),
                None => on_terminal.env_remove(key),
            };
        }
        on_terminal
            .env("TERM", "xterm")
            .stdin(Stdio::from(slave()?))
            .stdout(Stdio::from(slave()?))
            .stderr(Stdio::from(slave()?));
        let started = Instant::now();
        let child = on_terminal.spawn()?;
        Ok(Self { child, terminal: File::from(terminal), started, seen: String::new() })
    }

    /// Reads until `done` holds of everything that was printed; the time since the exec.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
        const PATIENCE: Duration = Duration::from_secs(120);
        let mut buffer = [0_u8; 4096];
        while !done(&self.seen) {
            let left = PATIENCE.saturating_sub(self.started.elapsed());
            let ready = poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&Timespec::try_from(left)?))?;
            let count = if ready == 0 { 0 } else { self.terminal.read(&mut buffer).unwrap_or(0) };
            if count == 0 {
                bail!("no {what} within {PATIENCE:?}; the terminal shows: {}", self.seen);
            }
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(self.started.elapsed())
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.terminal.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let mut buffer = [0_u8; 4096];
        // The terminal reports an error when its last user is gone.
        while self.terminal.read(&mut buffer).is_ok_and(|count| count > 0) {}
        self.child.wait()?;
        Ok(())
    }
}
