//! The node agent's settings.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Subnets;

/// Settings of a node. Every field has a default but the folder, which the server names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of images, disks and running workspaces. `berth server`: its own home, unless set.
    pub home: PathBuf,
    /// Name of the node; without it the host's name.
    pub name: Option<String>,
    /// Path of hull; without it, beside the running program.
    pub hull: Option<PathBuf>,
    /// Path of berth-init; without it, beside the running program.
    pub berth_init: Option<PathBuf>,
    /// Global options for hull.
    pub hull_options: Vec<String>,
    /// Addresses for workspaces, an IPv4 network with a prefix of 16 bits that nothing else here uses.
    #[schemars(with = "String")]
    pub subnets: Subnets,
    /// Network namespaces kept ready, which saves starts the time to make one.
    pub ready_networks: usize,
    /// Blank disks kept ready, of each size in use, which saves starts the time to make one.
    pub blank_disks: usize,
    /// Nothing new starts while the host's file system has fewer free bytes than this.
    pub min_free_disk_bytes: u64,
    /// Bytes of memory that are never given to workspaces: for the host and for Berth.
    pub reserved_memory_bytes: u64,
    /// The memory limits of running workspaces may add up to this many percent of the memory that is not reserved: limits are upper
    /// bounds, and most workspaces use little. Besides, a start needs memory that is really free.
    pub memory_overcommit_percent: u32,
    /// Most instances at the same time.
    pub max_instances: usize,
    /// Starts in progress at the same time; more wait their turn. Without it: four per processor.
    pub parallel_starts: Option<usize>,
    /// Seconds for which the digest of an image's tag is believed before the registry is asked again.
    pub image_refresh_seconds: u64,
    /// Seconds after which an unused image is removed.
    pub image_max_age_seconds: u64,
    /// Most bytes of one uncompressed image layer.
    pub max_layer_bytes: u64,
    /// Seconds that a checkout may take.
    pub checkout_timeout_seconds: u64,
    /// Seconds that processes have to end by themselves when a pod does not say.
    pub stop_grace_seconds: u64,
    /// Bytes at which an instance's log is cut in two and the older half dropped.
    pub max_log_bytes: u64,
    /// `host:port` of registries with private addresses, or that speak plain http.
    pub allow_private_registries: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            home: PathBuf::from("/var/lib/berth"),
            name: None,
            hull: None,
            berth_init: None,
            hull_options: Vec::new(),
            subnets: Subnets::default(),
            ready_networks: 4,
            blank_disks: 2,
            min_free_disk_bytes: 5 << 30,
            reserved_memory_bytes: 512 << 20,
            memory_overcommit_percent: 1000,
            max_instances: 1000,
            parallel_starts: None,
            image_refresh_seconds: 300,
            image_max_age_seconds: 7 * 86_400,
            max_layer_bytes: 32 << 30,
            checkout_timeout_seconds: 1800,
            stop_grace_seconds: 10,
            max_log_bytes: 10 << 20,
            allow_private_registries: Vec::new(),
        }
    }
}

/// A setting that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `host:port`.
    #[error("node.allow_private_registries has {0:?}, which is not host:port")]
    Registry(String),
    /// A folder.
    #[error("node.home must be an absolute path, not {0:?}")]
    Home(PathBuf),
    /// Overcommit.
    #[error("node.memory_overcommit_percent must be at least 1")]
    Overcommit,
}

impl Config {
    /// Looks for mistakes, without side effects.
    ///
    /// # Errors
    /// The first mistake.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.home.is_absolute() {
            return Err(ConfigError::Home(self.home.clone()));
        }
        if self.memory_overcommit_percent == 0 {
            return Err(ConfigError::Overcommit);
        }
        for entry in &self.allow_private_registries {
            berth_http::outbound::Guard::new([entry.as_str()]).map_err(|_| ConfigError::Registry(entry.clone()))?;
        }
        Ok(())
    }

    /// The node's name: as configured, else the host's.
    #[must_use]
    pub fn node_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let clean: String = name
                .trim()
                .to_ascii_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
                .collect();
            let clean = clean.trim_matches(['-', '.']).to_owned();
            if clean.is_empty() { "node".to_owned() } else { clean }
        })
    }
}
