//! The server's process: started in a session of its own, or found running; waited for by pidfd either way.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::PostgresError;
use crate::install::{Installation, io};

/// A postmaster.
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Server {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The server that runs on `data`, if one does: `postmaster.pid` names it, and its working directory is that folder.
    pub(crate) fn adopt(data: &Path) -> Option<Self> {
        let pid = postmaster_pid(data)?;
        let server = Self::open(pid)?;
        // Read after the pidfd was opened: if the pid had been reused in between, this would be another process's folder.
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let same = std::fs::canonicalize(data).is_ok_and(|data| data == cwd);
        same.then(|| {
            tracing::info!(pid, "adopting the Postgres that still runs");
            server
        })
    }

    /// Starts one. It leads a session of its own: a terminal's Ctrl-C, or our death, does not reach it.
    pub(crate) async fn spawn(installation: &Installation, data: &Path) -> Result<Self, PostgresError> {
        let log_path = data.join("server.log");
        rotate(&log_path);
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(&log_path).map_err(io("open", &log_path))?;
        let error_log = log.try_clone().map_err(io("open", &log_path))?;
        let mut command = installation.command("postgres");
        command.arg("-D").arg(data).stdout(log).stderr(error_log).process_group(0).kill_on_drop(false);
        let mut child = command.spawn().map_err(io("start postgres on", data))?;
        let pid = child.id().unwrap_or_default();
        let server = Self::open(pid)
            .ok_or_else(|| PostgresError::Program { program: "postgres".to_owned(), output: crate::tail(&log_path) })?;
        // Reaps it when it ends while we live.
        tokio::spawn(async move { child.wait().await });
        Ok(server)
    }

    fn open(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        #[expect(deprecated, reason = "an OwnedFd is I/O safe; the replacement is an unsafe function")]
        let pidfd = AsyncFd::new(pidfd).ok()?;
        Some(Self { pid, pidfd })
    }

    /// Waits for its end.
    pub(crate) async fn exited(&self) {
        // A pidfd becomes readable when the process ends; an error here means that the reactor is gone, and so are we.
        let _ = self.pidfd.readable().await;
    }

    /// Fast shutdown (SIGINT); immediate (SIGQUIT: recovery at the next start) when it takes longer than `patience`.
    pub(crate) async fn stop(&self, patience: Duration) -> Result<(), PostgresError> {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            match pidfd_send_signal(self.pidfd.get_ref(), signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                Err(error) => {
                    return Err(PostgresError::Io {
                        action: "signal",
                        path: format!("postgres {}", self.pid),
                        source: error.into(),
                    });
                }
            }
            if tokio::time::timeout(patience, self.exited()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid, ?signal, "Postgres does not end; trying harder");
        }
        Ok(())
    }
}

fn rotate(log: &Path) {
    const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() > LIMIT_BYTES)
        && let Err(error) = std::fs::rename(log, log.with_extension("log.1"))
    {
        tracing::warn!(%error, log = %log.display(), "the log of Postgres could not be rotated");
    }
}

fn postmaster_pid(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

/// Whether the postmaster `pid` takes connections.
pub(crate) fn is_ready(data: &Path, pid: u32) -> bool {
    std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| says_ready(&text, pid))
}

/// Line 1 of `postmaster.pid` is the postmaster's pid, line 8 its state. A killed postmaster leaves its file behind, with its last state.
fn says_ready(text: &str, pid: u32) -> bool {
    let line = |number| text.lines().nth(number).map(str::trim);
    line(0) == Some(pid.to_string().as_str()) && line(7) == Some("ready")
}

#[cfg(test)]
mod tests {
    use super::says_ready;

    #[test]
    fn a_dead_servers_last_word_does_not_count() {
        let text = "71\n/data\n1700000000\n5432\n/socket\n\n  1 2\nready   \n";
        assert!(says_ready(text, 71));
        assert!(!says_ready(text, 72));
        assert!(!says_ready(&text.replace("ready   ", "starting"), 71));
        assert!(!says_ready("71\n/data\n", 71) && !says_ready("", 71));
    }
}
