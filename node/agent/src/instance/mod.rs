//! Instances on the node, without Kubernetes: started, watched, stopped, and found again after a crash.

mod container;
mod content;
mod end;
pub mod leftovers;
mod node;
mod programs;
mod record;
mod runtime;
mod start;
mod steps;
mod stop;
mod takeover;
mod under_way;

pub(crate) use end::readiness;
pub use leftovers::{Census, census};
pub use node::{Instance, Node, NodeError};
pub use programs::{ProgramError, Programs};
pub use record::{Ended, Record, StartRequest};
pub use runtime::{Runtime, RuntimeError};
pub use start::{Ready, StartError};
pub use steps::{START_LOG_FILE, StepGuard, Steps};
pub use stop::explain;
pub(crate) use under_way::{Quiet, UnderWay};
