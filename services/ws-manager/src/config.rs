//! Settings of ws-manager.

use berth_workspace_crd::WorkspaceClassSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of ws-manager, section `ws_manager`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Namespace of workspaces, disks, pods and the lease.
    pub namespace: String,
    /// Identity of this replica in the leader election. In the one-machine shape a constant: a restarted server then takes over its own lease
    /// at once. In a cluster the pod's name.
    pub identity: String,
    /// Make the namespace and the custom resource definitions at start. Off where an administrator applies `deploy/crds`.
    pub install_definitions: bool,
    /// Image of workspaces when neither the request nor the repository names one.
    pub base_image: String,
    /// Class of workspaces that name none.
    pub default_class: String,
    /// Workspace classes.
    pub classes: Vec<ClassConfig>,
    /// Limits and timeouts.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: berth_workspace_crd::NAMESPACE.to_owned(),
            identity: "berth-server".to_owned(),
            install_definitions: true,
            base_image: "localhost/berth/base:latest".to_owned(),
            default_class: "small".to_owned(),
            classes: default_classes(),
            policy: Policy::default(),
        }
    }
}

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing to choose from.
    #[error(
        "ws_manager.classes is empty: define at least one class, or leave the setting out for small, medium and large"
    )]
    NoClasses,
    /// The same name twice.
    #[error("ws_manager.classes has two classes named {0:?}: rename one")]
    DuplicateClass(String),
    /// Not usable as the name of an object.
    #[error(
        "ws_manager.classes has a class named {0:?}: a name is 1 to 63 of a-z, 0-9 and dash, and begins and ends with a letter or digit"
    )]
    ClassName(String),
    /// The default does not exist.
    #[error("ws_manager.default_class is {0:?}, which is not among ws_manager.classes")]
    UnknownDefaultClass(String),
    /// A class that cannot hold a workspace.
    #[error("ws_manager.classes: {class}: {field} must be at least {least}")]
    TooSmall {
        /// Which class.
        class: String,
        /// Which setting.
        field: &'static str,
        /// Its lower bound.
        least: i64,
    },
    /// No start could ever succeed.
    #[error("ws_manager.policy.max_attempts is 0: it must be at least 1")]
    NoAttempts,
    /// The price is not a decimal number.
    #[error("ws_manager.classes: {class}: credits_per_hour {price:?} is not a decimal number with at most six places")]
    Price {
        /// Which class.
        class: String,
        /// What was given.
        price: String,
    },
}

impl Config {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.classes.is_empty() {
            return Err(ConfigError::NoClasses);
        }
        if self.policy.max_attempts == 0 {
            return Err(ConfigError::NoAttempts);
        }
        let mut names = std::collections::BTreeSet::new();
        for class in &self.classes {
            class.validate()?;
            if !names.insert(&class.name) {
                return Err(ConfigError::DuplicateClass(class.name.clone()));
            }
        }
        if !names.contains(&self.default_class) {
            return Err(ConfigError::UnknownDefaultClass(self.default_class.clone()));
        }
        Ok(())
    }
}

/// One workspace class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// Its name, as in `--class`.
    pub name: String,
    /// Its name for people; without it `name`.
    #[serde(default)]
    pub display_name: String,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of disk.
    pub disk_bytes: i64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes per second of disk traffic in each direction; without it unlimited.
    #[serde(default)]
    pub io_bytes_per_second: Option<i64>,
    /// No program gains rights by being executed, so `sudo` does not work.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Credits per hour, for example `"1.5"`.
    pub credits_per_hour: String,
}

impl ClassConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let name = self.name.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inside = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        if name.len() > 63 || !edge(name.first()) || !edge(name.last()) || !name.iter().all(inside) {
            return Err(ConfigError::ClassName(self.name.clone()));
        }
        for (field, value, least) in [
            ("cpu_millis", i64::from(self.cpu_millis), 10),
            ("memory_bytes", self.memory_bytes, 33_554_432),
            ("disk_bytes", self.disk_bytes, 67_108_864),
            ("pids", i64::from(self.pids), 16),
            ("io_bytes_per_second", self.io_bytes_per_second.unwrap_or(i64::MAX), 65_536),
        ] {
            if value < least {
                return Err(ConfigError::TooSmall { class: self.name.clone(), field, least });
            }
        }
        let (whole, fraction) = self.credits_per_hour.split_once('.').unwrap_or((&self.credits_per_hour, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 12) || !digits(fraction, 6) {
            return Err(ConfigError::Price { class: self.name.clone(), price: self.credits_per_hour.clone() });
        }
        Ok(())
    }

    /// As the custom resource has it.
    #[must_use]
    pub fn spec(&self) -> WorkspaceClassSpec {
        let display_name = if self.display_name.is_empty() { self.name.clone() } else { self.display_name.clone() };
        WorkspaceClassSpec {
            display_name,
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            pids: self.pids,
            io_bytes_per_second: self.io_bytes_per_second,
            no_new_privileges: self.no_new_privileges,
            credits_per_hour: self.credits_per_hour.clone(),
        }
    }
}

const GIB: i64 = 1024 * 1024 * 1024;

fn default_classes() -> Vec<ClassConfig> {
    [
        ("small", "Small", 1, 2, 10, 2048, "1"),
        ("medium", "Medium", 2, 4, 30, 4096, "2"),
        ("large", "Large", 4, 8, 60, 8192, "4"),
    ]
    .into_iter()
    .map(|(name, display_name, cores, memory, disk, pids, credits)| ClassConfig {
        name: name.to_owned(),
        display_name: display_name.to_owned(),
        cpu_millis: cores * 1000,
        memory_bytes: memory * GIB,
        disk_bytes: disk * GIB,
        pids,
        io_bytes_per_second: None,
        no_new_privileges: false,
        credits_per_hour: credits.to_owned(),
    })
    .collect()
}

/// Limits and timeouts of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Seconds without activity after which a running workspace stops; 0: never.
    pub inactivity_seconds: u32,
    /// Seconds after which a running workspace stops in any case; 0: never.
    pub max_lifetime_seconds: u32,
    /// Seconds before a timeout at which the user is warned (at most half of the timeout).
    pub warning_seconds: u32,
    /// Seconds after which a start that is not done has failed.
    pub startup_seconds: u32,
    /// Seconds after which a stop that the node has not confirmed counts as done, and as failed.
    pub stopping_seconds: u32,
    /// Seconds that a workspace's processes have between SIGTERM and SIGKILL.
    pub termination_grace_seconds: u32,
    /// How many attempts a start has when pods are rejected or lost.
    pub max_attempts: u32,
    /// Milliseconds of pause after the first rejected attempt; doubles with each.
    pub retry_back_off_ms: u32,
    /// Milliseconds of the longest such pause.
    pub retry_back_off_max_ms: u32,
    /// Seconds after which a stopped instance's object is removed, if api has not done it.
    pub keep_stopped_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            inactivity_seconds: 1800,
            max_lifetime_seconds: 0,
            warning_seconds: 300,
            startup_seconds: 3600,
            stopping_seconds: 3600,
            termination_grace_seconds: 10,
            max_attempts: 5,
            retry_back_off_ms: 1000,
            retry_back_off_max_ms: 60_000,
            keep_stopped_seconds: 86_400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_a_round_trip() {
        let config = Config::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(with(|c| c.classes.clear()).contains("empty"));
        assert!(with(|c| c.default_class = "huge".into()).contains("\"huge\""));
        assert!(with(|c| c.classes[0].name = "-a".into()).contains("\"-a\""));
        assert!(with(|c| c.classes[1].name = "small".into()).contains("two classes"));
        assert!(with(|c| c.classes[0].memory_bytes = 1).contains("memory_bytes must be at least"));
        assert!(with(|c| c.classes[0].credits_per_hour = "1,5".into()).contains("1,5"));
        assert!(with(|c| c.classes[0].credits_per_hour = "1.".into()).contains("decimal"));
        assert!(with(|c| c.policy.max_attempts = 0).contains("max_attempts"));
        assert!(serde_json::from_str::<Config>(r#"{"clases":[]}"#).is_err());
    }
}
