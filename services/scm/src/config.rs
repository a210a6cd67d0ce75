//! Settings of the service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_api_types::context::Provider;
use berth_http::outbound::{BadAllowEntry, Guard};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::context::{Hosts, HostsError};
use crate::secrets::MasterKeyError;

/// `[scm]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Self-hosted git hosts by `NAME[:PORT][/BASE]`, with their kind: `"git.example.com" = "gitlab"`.
    #[schemars(with = "BTreeMap<String, String>")]
    pub hosts: BTreeMap<String, Provider>,
    /// `host:port` pairs that may be private or loopback addresses, and that may be asked over plain http. A list, or a text with commas.
    #[serde(deserialize_with = "list_or_text")]
    pub allow_private_hosts: Vec<String>,
    /// File with the master key of stored secrets; made with a new key when it does not exist. `berth server`: `keys/master.key` in its home, unless set.
    pub master_key_file: PathBuf,
    /// Seconds that one lookup of refs may take, 1 to 300.
    pub timeout_seconds: u64,
    /// Address of Bitbucket Cloud's API, which knows the branches of pull requests.
    pub bitbucket_api: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            allow_private_hosts: Vec::new(),
            master_key_file: PathBuf::new(),
            timeout_seconds: 20,
            bitbucket_api: "https://api.bitbucket.org/2.0".to_owned(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A host of `scm.hosts`.
    #[error("scm.hosts cannot be used")]
    Hosts(#[from] HostsError),
    /// An entry of `scm.allow_private_hosts`.
    #[error("scm.allow_private_hosts cannot be used")]
    Allow(#[from] BadAllowEntry),
    /// The timeout.
    #[error("scm.timeout_seconds is {0}: it must be from 1 to 300")]
    Timeout(u64),
    /// The master key.
    #[error("scm.master_key_file cannot be used")]
    MasterKey(#[from] MasterKeyError),
}

impl Config {
    /// The hosts of known kind, with plain http where private hosts are allowed.
    ///
    /// # Errors
    /// When a host's name is none.
    pub fn known_hosts(&self) -> Result<Hosts, ConfigError> {
        let mut hosts = Hosts::public();
        for (name, provider) in &self.hosts {
            hosts.add(name, *provider)?;
        }
        // The outbound guard validates the form of these entries.
        Guard::new(self.allow_private_hosts.iter().map(String::as_str))?;
        for entry in &self.allow_private_hosts {
            if let Some((host, port)) = entry.trim().rsplit_once(':')
                && let Ok(port) = port.parse()
            {
                hosts.allow_plain_http(host, port);
            }
        }
        Ok(hosts)
    }

    pub(crate) fn guard(&self) -> Result<Guard, ConfigError> {
        Ok(Guard::new(self.allow_private_hosts.iter().map(String::as_str))?)
    }

    pub(crate) fn timeout(&self) -> Result<Duration, ConfigError> {
        match self.timeout_seconds {
            seconds @ 1..=300 => Ok(Duration::from_secs(seconds)),
            seconds => Err(ConfigError::Timeout(seconds)),
        }
    }
}

/// A list, or its elements with commas between them: what a variable of the environment can say without quoting.
fn list_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list, or a text with commas")]
    enum Given {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::List(list) => list,
        Given::Text(text) => {
            text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_hosts_are_a_list_or_a_text() {
        let read = |value: serde_json::Value| {
            serde_json::from_value::<Config>(serde_json::json!({ "allow_private_hosts": value }))
                .map(|config| config.allow_private_hosts)
        };
        let two = vec!["git.lan:8443".to_owned(), "[::1]:80".to_owned()];
        assert_eq!(read(serde_json::json!(["git.lan:8443", "[::1]:80"])).unwrap(), two);
        assert_eq!(read("git.lan:8443, [::1]:80,".into()).unwrap(), two);
        assert_eq!(read("".into()).unwrap(), Vec::<String>::new());
        assert!(read(7.into()).unwrap_err().to_string().contains("text with commas"));
    }
}
