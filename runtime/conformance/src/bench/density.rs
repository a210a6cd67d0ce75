//! Many containers: what an idle one costs, and many starts at once.

use std::fs;

use anyhow::Result;

use crate::Bench;
use crate::bundles::{self, Kind};
use crate::runtimes::Runtime;
use crate::table::{Cell, Row, percentiles};
use crate::workload::{command, create_and_start, id, remove};

/// Starts at once.
const AT_ONCE: usize = 16;

/// The rows of this file.
pub(crate) fn measure(bench: &Bench, idle: usize) -> Result<Vec<Row>> {
    let (mut memory, mut together) = (vec![Cell::None], vec![Cell::None]);
    for runtime in &bench.runtimes {
        let ids: Vec<String> = (0..idle).map(|number| id(&format!("{}-i{number}", runtime.label))).collect();
        let started = ids.iter().try_for_each(|id| create_and_start(bench, runtime, Kind::Default, id).map(drop));
        let used: Result<Vec<Option<u64>>> = ids.iter().map(|id| charged_kib(id)).collect();
        for id in &ids {
            let _ = remove(bench, runtime, id);
        }
        started?;
        let used: Option<Vec<u64>> = used?.into_iter().collect();
        memory.push(match used {
            Some(used) => Cell::Text((used.iter().sum::<u64>() / u64::try_from(idle.max(1))?).to_string()),
            None => Cell::None,
        });
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
        Row { name: format!("memory charged to an idle container's cgroup, mean of {idle}, KiB"), cells: memory },
    ])
}

/// Of the processes and of what the kernel keeps for them; nothing where no memory controller counts.
fn charged_kib(id: &str) -> Result<Option<u64>> {
    for folder in bundles::cgroups(id)? {
        for name in ["memory.current", "memory.usage_in_bytes"] {
            if let Ok(text) = fs::read_to_string(format!("{folder}/{name}")) {
                return Ok(Some(text.trim().parse::<u64>()? / 1024));
            }
        }
    }
    Ok(None)
}

/// Nanoseconds until the last of those that ran at once has ended.
fn at_once(bench: &Bench, runtime: &Runtime, many: usize) -> Result<u64> {
    let ids: Vec<String> = (0..many).map(|number| id(&format!("{}-{number}", runtime.label))).collect();
    let mut commands = Vec::new();
    for id in &ids {
        let bundle = bench.bundles.write(id, Kind::Default, &["/bin/true"])?;
        let mut words = command(bench, runtime, Kind::Default);
        words.extend(["run".to_owned(), "--bundle".to_owned(), bundle, id.clone()]);
        commands.push(words);
    }
    let from = std::time::Instant::now();
    let mut running = Vec::new();
    for (slot, words) in commands.iter().enumerate() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        running.push(bench.meter.spawn(&words, &slot.to_string())?);
    }
    for ((child, file), words) in running.iter_mut().zip(&commands) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.meter.finish(child, file, &words)?;
    }
    Ok(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
