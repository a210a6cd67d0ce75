//! Processor time of the processes that share the cores.

use anyhow::Context as _;

use crate::server::Server;

/// Clock ticks a second in /proc (`USER_HZ`, the same on every Linux that we run on).
const TICKS: f64 = 100.0;

/// Seconds since each began.
#[derive(Debug)]
pub(crate) struct Cpu {
    server: f64,
    postgres: f64,
    /// This process and its children that have ended: git.
    driver: f64,
}

impl Cpu {
    pub(crate) fn now(server: &Server) -> anyhow::Result<Self> {
        let pid_file = server.home.join("postgres/postmaster.pid");
        let text = std::fs::read_to_string(&pid_file).with_context(|| pid_file.display().to_string())?;
        let postmaster = text.lines().next().context("the postmaster's process id")?.to_owned();
        let server = stat(&server.pid()?.to_string()).context("the server")?;
        let driver = stat("self").context("this process")?;
        let mut postgres = stat(&postmaster).map_or(0.0, |stat| stat.own + stat.ended);
        for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
            if let Some(stat) = entry.file_name().to_str().and_then(stat)
                && stat.parent == postmaster
            {
                postgres += stat.own;
            }
        }
        Ok(Self { server: server.own, postgres, driver: driver.own + driver.ended })
    }

    /// Cores used since `before`, for the table.
    pub(crate) fn since(&self, before: &Self, seconds: f64) -> String {
        let cores = |now: f64, before: f64| (now - before) / seconds;
        format!(
            "{:.2} / {:.2} / {:.2}",
            cores(self.server, before.server),
            cores(self.postgres, before.postgres),
            cores(self.driver, before.driver)
        )
    }
}

struct Stat {
    parent: String,
    own: f64,
    ended: f64,
}

/// `/proc/<pid>/stat`, see proc_pid_stat(5); `None`: there is no such process.
fn stat(pid: &str) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything but ends at the last parenthesis; the state is the third field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |first: usize| {
        Some((fields.get(first)?.parse::<f64>().ok()? + fields.get(first + 1)?.parse::<f64>().ok()?) / TICKS)
    };
    Some(Stat { parent: (*fields.get(1)?).to_owned(), own: ticks(11)?, ended: ticks(13)? })
}
