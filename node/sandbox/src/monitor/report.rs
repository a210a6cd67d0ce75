//! What a monitor tells the agent while it starts the container.

use serde::{Deserialize, Serialize};

/// One message on the report socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// `create` succeeded.
    Created {
        /// The container's first process, in the host's pid namespace.
        container_pid: u32,
        /// How long `create` took.
        elapsed_us: u64,
    },
    /// `start` succeeded. The last message.
    Started(Started),
    /// The container did not start. `exit.json` says the same. The last message.
    Failed(Failure),
}

/// A container that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Its first process, in the host's pid namespace.
    pub container_pid: u32,
    /// How long the runtime's `create` took.
    pub create_us: u64,
    /// How long the runtime's `start` took.
    pub start_us: u64,
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the runtime's {step} failed: {message}")]
pub struct Failure {
    /// `create`, `start`, or what the monitor itself was doing.
    pub step: String,
    /// The runtime's own error: the last of its JSON log, or what it printed.
    pub message: String,
}
