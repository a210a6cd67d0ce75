//! The table of the results.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::Bench;

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

/// The whole part of the document.
pub(crate) fn markdown(bench: &Bench, rows: &[Row]) -> Result<String> {
    let mut out = String::new();
    let kernel = rustix::system::uname();
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
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
