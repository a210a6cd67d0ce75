//! What hull promises, and whether this run kept the promises.

use crate::Bench;
use crate::bundles::Kind;
use crate::meter::Taken;
use crate::table::percentiles;
use crate::workload::{Samples, Work};

/// Largest binary, in bytes.
const LARGEST: u64 = 2 << 20;

/// One promise.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// What was measured, and the bar, as text.
    pub(crate) figure: String,
    pub(crate) bar: String,
    pub(crate) holds: bool,
}

impl Bar {
    /// A ratio of two medians, in hundredths.
    fn ratio(name: String, ours: u64, theirs: u64, most: u64) -> Bar {
        let hundredths = ours.saturating_mul(100) / theirs.max(1);
        Bar {
            name,
            figure: format!("{}.{:02}", hundredths / 100, hundredths % 100),
            bar: format!("at most {}.{}", most / 100, most % 100 / 10),
            holds: ours.saturating_mul(100) <= theirs.saturating_mul(most),
        }
    }
}

/// Column of the floor, and of hull.
const FLOOR: usize = 0;
const HULL: usize = 1;

fn wall(taken: &Taken) -> u64 {
    taken.wall_ns
}

fn cpu(taken: &Taken) -> u64 {
    taken.cpu_us
}

fn half(samples: &Samples, work: Work, column: usize, of: fn(&Taken) -> u64) -> Option<u64> {
    let (_, columns) = samples.taken.iter().find(|(other, _)| *other == work)?;
    percentiles(columns.get(column)?.iter().map(of)).map(|(half, _)| half)
}

fn largest(samples: &Samples, column: usize) -> Option<u64> {
    let columns = samples.taken.iter().filter_map(|(_, columns)| columns.get(column));
    columns.flatten().map(|taken| taken.rss_kib).max()
}

/// Everything that these samples allow to judge; comparisons with crun only if it was among the peers.
pub(crate) fn judge(bench: &Bench, samples: &Samples) -> anyhow::Result<Vec<Bar>> {
    let mut bars = Vec::new();
    let mut compare = |name: String, work: Work, theirs: Option<u64>, of: fn(&Taken) -> u64, most: u64| {
        if let (Some(ours), Some(theirs)) = (half(samples, work, HULL, of), theirs) {
            bars.push(Bar::ratio(name, ours, theirs, most));
        }
    };
    let works: Vec<Work> = samples.taken.iter().map(|(work, _)| *work).collect();
    for work in &works {
        // The floor has no filter: its costs have to fit in.
        let like = match work {
            Work::RunCold | Work::Run(Kind::Seccomp) => Work::Run(Kind::Default),
            Work::Run(_) => *work,
            _ => continue,
        };
        compare(format!("{}, of the floor", work.name()), *work, half(samples, like, FLOOR, wall), wall, 150);
    }
    if let Some(crun) = bench.runtimes.iter().position(|runtime| runtime.label == "crun") {
        let column = crun.saturating_add(1);
        for work in &works {
            let (most, times) = match work {
                Work::Run(_) | Work::RunCold | Work::RunRested | Work::CreateStartDelete(_) => (70, "of crun"),
                Work::Exec(_) => (60, "of crun"),
                Work::State(_) => continue,
            };
            compare(format!("{}, {times}", work.name()), *work, half(samples, *work, column, wall), wall, most);
        }
        for work in works.iter().filter(|work| matches!(work, Work::Exec(_))) {
            let name = format!("CPU time of {}, of crun", work.name());
            compare(name, *work, half(samples, *work, column, cpu), cpu, 50);
        }
        if let (Some(ours), Some(theirs)) = (largest(samples, HULL), largest(samples, column)) {
            bars.push(Bar {
                name: "resident memory of any process, beside crun's".to_owned(),
                figure: format!("{ours} KiB"),
                bar: format!("at most {theirs} KiB"),
                holds: ours <= theirs,
            });
        }
    }
    if let Some(hull) = bench.runtimes.first() {
        let bytes = std::fs::metadata(&hull.path)?.len();
        bars.push(Bar {
            name: "binary".to_owned(),
            figure: format!("{} KiB", bytes >> 10),
            bar: format!("below {} KiB", LARGEST >> 10),
            holds: bytes < LARGEST,
        });
    }
    Ok(bars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_exact_at_the_bar() {
        assert!(Bar::ratio(String::new(), 150, 100, 150).holds);
        let over = Bar::ratio(String::new(), 1501, 1000, 150);
        assert!(!over.holds);
        assert_eq!((over.figure.as_str(), over.bar.as_str()), ("1.50", "at most 1.5"));
    }
}
