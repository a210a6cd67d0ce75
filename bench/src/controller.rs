//! The controller alone, with a node that does nothing: ws-manager's own test measures it.

use std::path::Path;

use anyhow::Context as _;

use crate::figures::Report;

/// Longest time from create to Running, in milliseconds.
const BAR_MS: f64 = 20.0;
/// Writes that one start may take.
const MOST_WRITES: u64 = 8;

/// Adds what the test has written.
pub(crate) fn tell(file: &Path, report: &mut Report) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let figures: serde_json::Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name} in {}", file.display()));
    report.add("create to Running, a node that does nothing, p50 of 50", figure("p50_ms")?, BAR_MS, "ms");
    report.add("the same, p95", figure("p95_ms")?, BAR_MS, "ms");
    let writes = figures["writes"].as_u64().with_context(|| format!("no writes in {}", file.display()))?;
    let verdict = if writes <= MOST_WRITES { "holds" } else { "**misses**" };
    report.row(
        "the most writes of one of these starts",
        format!("{writes}"),
        format!("at most {MOST_WRITES}"),
        verdict,
    );
    Ok(())
}
