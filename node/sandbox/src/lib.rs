//! The two processes that the host runs for each workspace, and what the node agent needs to drive them.
//!
//! * [`rootfs`]: a short-lived helper that makes the workspace's user namespace and mounts its root file system in it.
//! * [`monitor`]: the container's parent for as long as it lives. It keeps its output and persists its exit status, so that both
//!   survive a restart of everything above.
//!
//! The processes themselves are roles of the `berth-init` program (`berth-init rootfs`, `berth-init monitor`): small, static,
//! single-threaded, without an async runtime. This library holds both sides, so that what they say to each other is one type.

mod identity;
mod message;
pub mod monitor;
mod persist;
pub mod rootfs;

pub use identity::{Identity, IdentityError};
