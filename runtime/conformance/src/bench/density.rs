//! Many containers: what an idle one costs, and many starts at once.

use std::fs;

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::table::{Cell, Row, percentiles};
use crate::workload::{at_once, create_and_start, id, remove};

/// Starts at once.
const AT_ONCE: usize = 16;

/// The rows of this file.
pub(crate) fn measure(bench: &Bench, idle: usize) -> Result<Vec<Row>> {
    let (mut memory, mut processes, mut together) = (vec![Cell::None], vec![Cell::None], vec![Cell::None]);
    for runtime in &bench.runtimes {
        let ids: Vec<String> = (0..idle).map(|number| id(&format!("{}-i{number}", runtime.label))).collect();
        let before = (available_kib()?, process_count()?);
        let started = ids.iter().try_for_each(|id| create_and_start(bench, runtime, id));
        let after = (available_kib()?, process_count()?);
        for id in &ids {
            let _ = remove(bench, runtime, id);
        }
        started?;
        let each = u64::try_from(idle.max(1))?;
        memory.push(Cell::Text((before.0.saturating_sub(after.0) / each).to_string()));
        let left = after.1.saturating_sub(before.1);
        processes.push(Cell::Text(format!("{}.{}", left / idle.max(1), left * 10 / idle.max(1) % 10)));
    }
    let mut samples = vec![Vec::new(); bench.runtimes.len()];
    for _ in 0..(bench.rounds / 4).max(1) {
        for (runtime, samples) in bench.runtimes.iter().zip(&mut samples) {
            samples.push(at_once(bench, runtime, AT_ONCE)?);
        }
    }
    together.extend(samples.into_iter().map(|samples| Cell::Times(percentiles(samples.into_iter()))));
    Ok(vec![
        Row { name: format!("{AT_ONCE} `run`s at once, until the last has ended, ms"), cells: together },
        Row { name: format!("memory of an idle container ({idle} at once), KiB"), cells: memory },
        Row { name: "processes of an idle container".to_owned(), cells: processes },
    ])
}

fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.split_whitespace().nth(1).context("no MemAvailable")?.parse()?)
}

fn process_count() -> Result<usize> {
    let numbered = |name: &std::ffi::OsStr| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    Ok(fs::read_dir("/proc")?.flatten().filter(|entry| numbered(&entry.file_name())).count())
}
