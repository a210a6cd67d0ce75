//! The table of the results.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::bars::Bar;
use crate::bundles::Kind;
use crate::meter::Taken;
use crate::workload::{Samples, Work};

/// One measured thing of all columns: the floor first, then the runtimes.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
}

/// One result.
#[derive(Debug)]
pub(crate) enum Cell {
    None,
    /// Nanoseconds: half of the samples were faster, 19 of 20 were.
    Times(Option<(u64, u64)>),
    Text(String),
}

/// p50 and p95.
pub(crate) fn percentiles(samples: impl Iterator<Item = u64>) -> Option<(u64, u64)> {
    let mut samples: Vec<u64> = samples.collect();
    samples.sort_unstable();
    let at = |percent: usize| samples.get((samples.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some((at(50)?, at(95)?))
}

/// Nanoseconds as milliseconds with a digit that means something.
pub(crate) fn milliseconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds.saturating_add(50_000) / 100_000;
    if tenths >= 1000 { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// The rows of what was timed.
pub(crate) fn timed(samples: &Samples) -> Vec<Row> {
    let row = |name: String, columns: &[Vec<Taken>], of: fn(&Taken) -> u64| {
        let cells = columns.iter().map(|taken| Cell::Times(percentiles(taken.iter().map(of))));
        Row { name, cells: cells.collect() }
    };
    let mut rows = Vec::new();
    for (work, columns) in &samples.taken {
        rows.push(row(format!("{}, ms", work.name()), columns, |one| one.wall_ns));
    }
    let mut memory = Vec::new();
    for (work, columns) in &samples.taken {
        if !matches!(
            work,
            Work::Run(Kind::Default | Kind::Seccomp)
                | Work::CreateStartDelete(Kind::Default)
                | Work::Exec(Kind::Default)
        ) {
            continue;
        }
        let name = format!("CPU time of {}, all processes, ms", work.name());
        rows.push(row(name, columns, |one| one.cpu_us.saturating_mul(1000)));
        let cells = columns.iter().map(|taken| match taken.iter().map(|one| one.rss_kib).max() {
            Some(most) => Cell::Text(most.to_string()),
            None => Cell::None,
        });
        memory.push(Row {
            name: format!("resident memory of {}, largest process, KiB", work.name()),
            cells: cells.collect(),
        });
    }
    rows.extend(memory);
    rows
}

/// The whole part of the document.
pub(crate) fn markdown(bench: &Bench, rows: &[Row], bars: &[Bar]) -> Result<String> {
    let mut out = String::new();
    let kernel = rustix::system::uname();
    let cgroups =
        match (Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), Path::new("/run/systemd/system").exists()) {
            (true, true) => "v2, systemd",
            (true, false) => "v2",
            (false, _) => "v1",
        };
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    writeln!(
        out,
        "Linux {}, {cores} cores, cgroups {cgroups}, {} rounds in turn, load {load} at the end. Times are p50 / p95.",
        kernel.release().to_string_lossy(),
        bench.rounds
    )?;
    write!(out, "\n| | kernel floor |")?;
    for runtime in &bench.runtimes {
        write!(out, " {} |", runtime.title)?;
    }
    write!(out, "\n|---|---|{}", "---|".repeat(bench.runtimes.len()))?;
    for row in rows {
        write!(out, "\n| {} |", row.name)?;
        for cell in &row.cells {
            match cell {
                Cell::None | Cell::Times(None) => write!(out, " - |")?,
                Cell::Times(Some((half, most))) => write!(out, " {} / {} |", milliseconds(*half), milliseconds(*most))?,
                Cell::Text(text) => write!(out, " {text} |")?,
            }
        }
    }
    write!(out, "\n\n| bar | figure | | |\n|---|---|---|---|")?;
    for bar in bars {
        let word = if bar.holds { "holds" } else { "**misses**" };
        write!(out, "\n| {} | {} | {} | {word} |", bar.name, bar.figure, bar.bar)?;
    }
    out.push('\n');
    Ok(out)
}

const BEGIN: &str = "<!-- bench-runtime -->";
const END: &str = "<!-- /bench-runtime -->";

/// Replaces what is between the marks of a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let old = fs::read_to_string(path)?;
    let (before, rest) = old.split_once(BEGIN).with_context(|| format!("no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END}"))?;
    fs::write(path, format!("{before}{BEGIN}\n{text}{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        assert_eq!(percentiles((1..=40).rev()), Some((20, 38)));
        assert_eq!(percentiles([7].into_iter()), Some((7, 7)));
        assert_eq!(percentiles(std::iter::empty()), None);
    }

    #[test]
    fn milliseconds_keep_one_digit() {
        assert_eq!(milliseconds(2_649_999), "2.6");
        assert_eq!(milliseconds(149_000_000), "149");
    }
}
