//! What a monitor is told to run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container to start and watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Directory for `monitor.json`, `exit.json`, `output.log`; usually the bundle.
    pub state_dir: PathBuf,
    /// The OCI bundle.
    pub bundle: PathBuf,
    /// The container's id.
    pub container_id: String,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// Its global options, before the command: `--root`, `--cgroup-manager`, ... The monitor adds `--log` and `--log-format json`.
    #[serde(default)]
    pub runtime_args: Vec<String>,
    /// Options of its `create` command beside those that the monitor gives (`--bundle`, `--pid-file`, `--preserve-fds`).
    #[serde(default)]
    pub create_args: Vec<String>,
    /// Whether the runtime is to write the phases of `create` (`--timeline`, which hull has), for [`timeline`](super::timeline()).
    #[serde(default)]
    pub timeline: bool,
    /// When `output.log` is longer it becomes `output.log.1`, whose content is lost.
    #[serde(default = "default_log_max_bytes")]
    pub log_max_bytes: u64,
    /// Longest time for `create` and for `start`, each.
    #[serde(default = "default_runtime_timeout_ms")]
    pub runtime_timeout_ms: u64,
}

fn default_log_max_bytes() -> u64 {
    10 * 1024 * 1024
}

fn default_runtime_timeout_ms() -> u64 {
    60_000
}

impl Spec {
    /// A specification with the defaults for what is not named.
    pub fn new(bundle: impl Into<PathBuf>, container_id: impl Into<String>, runtime: impl Into<PathBuf>) -> Self {
        let bundle = bundle.into();
        Self {
            state_dir: bundle.clone(),
            bundle,
            container_id: container_id.into(),
            runtime: runtime.into(),
            runtime_args: Vec::new(),
            create_args: Vec::new(),
            timeline: false,
            log_max_bytes: default_log_max_bytes(),
            runtime_timeout_ms: default_runtime_timeout_ms(),
        }
    }
}
