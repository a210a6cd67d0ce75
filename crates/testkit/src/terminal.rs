//! A program on a terminal of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::time::Timespec;

const PATIENCE: Duration = Duration::from_secs(120);

/// A program that has a terminal.
#[derive(Debug)]
pub struct OnTerminal {
    child: Child,
    terminal: File,
    started: Instant,
    seen: String,
}

impl OnTerminal {
    /// Starts `command` with a terminal of its own.
    ///
    /// # Errors
    /// When there is no terminal to be had, or no such program.
    pub fn spawn(command: &Command) -> anyhow::Result<Self> {
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

    /// Waits until the terminal shows `text`, and forgets what was shown up to there.
    ///
    /// # Errors
    /// When it does not come within two minutes.
    pub fn expect(&mut self, text: &str) -> anyhow::Result<()> {
        self.until(text, |seen| seen.contains(text))?;
        if let Some(at) = self.seen.find(text) {
            self.seen.drain(..at + text.len());
        }
        Ok(())
    }

    /// Reads until `done` holds of the output; returns the time since the program was started. `what` describes what is waited for.
    ///
    /// # Errors
    /// When it does not come within two minutes.
    pub fn until(&mut self, what: &str, done: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut buffer = [0_u8; 4096];
        while !done(&self.seen) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let ready = poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&Timespec::try_from(left)?))?;
            let count = if ready == 0 { 0 } else { self.terminal.read(&mut buffer).unwrap_or(0) };
            if count == 0 {
                bail!("no {what:?} within {PATIENCE:?}; the terminal shows: {}", self.seen);
            }
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(self.started.elapsed())
    }

    /// Types.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.terminal.write_all(text.as_bytes())?)
    }

    /// Closes the terminal, as a closed window does; returns how the program ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn hang_up(mut self) -> anyhow::Result<ExitStatus> {
        drop(self.terminal);
        Ok(self.child.wait()?)
    }

    /// Waits for the program's end; returns how it ended, and the last output.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn finish(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let mut buffer = [0_u8; 4096];
        // The terminal reports an error when its last user is gone.
        while let Ok(count @ 1..) = self.terminal.read(&mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok((self.child.wait()?, self.seen))
    }
}
