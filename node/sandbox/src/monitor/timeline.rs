//! How the runtime made a container: what it writes with `--timeline`.

use std::path::Path;

use serde::Deserialize;

/// Name of the file in the state directory to which the runtime writes the phases of `create`, as JSON lines.
pub(super) const FILE: &str = "timeline.jsonl";

/// A phase of the runtime's `create`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RuntimePhase {
    /// Its name.
    pub phase: String,
    /// Nanoseconds from the beginning of the runtime to the end of this phase.
    pub ns: u64,
}

/// The phases of the container whose state directory is `dir`, in order of time. What cannot be read is left out: people read it, nothing
/// depends on it.
pub fn timeline(dir: &Path) -> Vec<RuntimePhase> {
    let text = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
    let mut phases: Vec<RuntimePhase> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    phases.sort_by_key(|phase| phase.ns);
    phases
}
