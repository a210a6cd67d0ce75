//! The node agent's settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::network::Subnets;

/// Settings of a node. Every field has a default but the folder, which the server names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `BERTH_HOME`.
    pub home: PathBuf,
    /// Name of the node; the host name when absent.
    pub name: Option<String>,
    /// hull; beside the running program when absent.
    pub hull: Option<PathBuf>,
    /// berth-init; beside the running program when absent.
    pub berth_init: Option<PathBuf>,
    /// Global options for hull.
    pub hull_options: Vec<String>,
    /// Addresses for workspaces, an IPv4 network of 16 bits.
    pub subnets: Subnets,
    /// Networks kept ready.
    pub ready_networks: usize,
    /// Blank disks kept ready, of each size in use.
    pub blank_disks: usize,
    /// Nothing new starts while the host's file system has less free.
    pub min_free_disk_bytes: u64,
    /// Memory that is never given to workspaces: for the host and for Berth.
    pub reserved_memory_bytes: u64,
    /// Limits of running workspaces together may be this many percent of the memory that is not reserved: limits are upper bounds, and most
    /// workspaces use little. What is really free is looked at besides.
    pub memory_overcommit_percent: u32,
    /// Instances at most.
    pub max_instances: usize,
    /// Starts under way at once; more wait their turn. None: four a processor.
    pub parallel_starts: Option<usize>,
    /// A tag that was looked up this recently is not asked for again, seconds.
    pub image_refresh_seconds: u64,
    /// An image that nothing used for so long is removed, seconds.
    pub image_max_age_seconds: u64,
    /// Bytes of one uncompressed layer at most.
    pub max_layer_bytes: u64,
    /// Longest checkout, seconds.
    pub checkout_timeout_seconds: u64,
    /// Processes get so long to end by themselves when a pod does not say, seconds.
    pub stop_grace_seconds: u64,
    /// An instance's log is cut in two at so many bytes, and the older half dropped.
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
