//! The monitor: the container's parent, for as long as it lives.
//!
//! It starts the container through the OCI runtime, copies its output to `output.log` (bounded), waits for it, and persists how it ended in
//! `exit.json`. It has a session of its own and no death signal: nothing of it ends with the node agent, which finds it again by
//! `monitor.json` (pid, start time, boot id). A monitor that was killed leaves no `exit.json`: the status is then *unknown*, never a guess.

mod adopt;
mod container;
mod log;
mod report;
mod role;
mod spec;
mod timeline;

pub use adopt::{Exit, MonitorError, MonitorHandle, MonitorInfo, Outcome, adopt, spawn};
pub use log::{LOG_FILE, OLD_LOG_FILE};
pub use report::{Failure, Phase, Started};
pub use role::main;
pub use spec::Spec;
pub use timeline::{RuntimePhase, timeline};

/// Name of the file with [`MonitorInfo`].
pub const MONITOR_FILE: &str = "monitor.json";
/// Name of the file with [`Exit`].
pub const EXIT_FILE: &str = "exit.json";
