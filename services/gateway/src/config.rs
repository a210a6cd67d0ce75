//! Settings of the gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Settings of the gateway, section `gateway`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Origins of pages that may open websockets here, for example `https://berth.example.org`. A request without `Origin` does not come from
    /// a page.
    pub allowed_origins: Vec<String>,
    /// Seconds between pings of a websocket; one that is silent for three times as long is closed.
    pub ping_seconds: u64,
    /// Seconds after which the right of an open connection is checked again: what was revoked ends.
    pub recheck_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { allowed_origins: Vec::new(), ping_seconds: 30, recheck_seconds: 60 }
    }
}

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not an origin.
    #[error(
        "gateway.allowed_origins has {0:?}, which is not an origin: write scheme, host and port only, as in https://berth.example.org"
    )]
    Origin(String),
    /// A timer that always fires.
    #[error("gateway.{0} is 0: it must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.origins()?;
        for (name, value) in [("ping_seconds", self.ping_seconds), ("recheck_seconds", self.recheck_seconds)] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        Ok(())
    }

    pub(crate) fn origins(&self) -> Result<Vec<url::Origin>, ConfigError> {
        self.allowed_origins.iter().map(|text| origin(text).ok_or_else(|| ConfigError::Origin(text.clone()))).collect()
    }
}

/// An origin (RFC 6454): a URL with nothing after the port. Compared as parsed, so that `https://x` and `https://X:443` are one.
pub(crate) fn origin(text: &str) -> Option<url::Origin> {
    let url = Url::parse(text).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let web = matches!(url.scheme(), "http" | "https");
    (bare && web && url.password().is_none() && !text.ends_with('/')).then(|| url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_parsed() {
        assert_eq!(origin("https://Berth.example:443"), origin("https://berth.example"));
        assert_ne!(origin("https://berth.example"), origin("http://berth.example"));
        assert_ne!(origin("https://berth.example"), origin("https://berth.example.evil.org"));
        for bad in
            ["null", "", "*", "berth.example", "https://a/", "https://a/b", "https://u@a", "file:///x", "https://a?x"]
        {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        Config::default().validate().unwrap();
        let bad = Config { allowed_origins: vec!["*".to_owned()], ..Config::default() };
        assert!(bad.validate().unwrap_err().to_string().contains("\"*\""));
        let bad = Config { ping_seconds: 0, ..Config::default() };
        assert!(bad.validate().unwrap_err().to_string().contains("ping_seconds"));
    }
}
