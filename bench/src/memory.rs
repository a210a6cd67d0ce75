//! Resident memory: supervisor and monitor of an idle workspace, and the server without Postgres.

use std::path::Path;

use anyhow::Context as _;

use crate::figures::Report;
use crate::server::Server;

/// Measures an idle workspace and the server.
pub(crate) fn measure(server: &Server, report: &mut Report) -> anyhow::Result<()> {
    let server_kib = resident_kib(&format!("/proc/{}", server.pid()?)).context("the server")?;
    let before = berth_inits();
    let name = "bench-memory";
    server.check(&["up", &server.repository, "--name", name])?;
    let mut per_workspace_kib = 0;
    for process in berth_inits().into_iter().filter(|process| !before.contains(process)) {
        per_workspace_kib += resident_kib(&process).unwrap_or(0);
    }
    server.check(&["delete", name])?;
    report.add("supervisor and monitor of an idle workspace, resident", kib(per_workspace_kib), 4.0, "MiB");
    report.add("the idle server without Postgres, resident", kib(server_kib), 80.0, "MiB");
    Ok(())
}

fn kib(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 1024.0
}

/// Folders in /proc of every `berth-init`, as PID 1 or monitor.
fn berth_inits() -> Vec<String> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            std::fs::read(path.join("cmdline")).is_ok_and(|line| {
                line.split(|byte| *byte == 0).next().is_some_and(|program| program.ends_with(b"berth-init"))
            })
        })
        .map(|path| path.display().to_string())
        .collect()
}

fn resident_kib(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new(process).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
