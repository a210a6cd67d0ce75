//! Settings of the service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the api service; every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where browsers reach the API: scheme, host and port, nothing after them. A cookie counts only in requests of pages from here.
    /// `berth server`: made from `server.listen`, unless set.
    pub public_url: String,
    /// Class of a workspace when the request names none. `berth server`: always `ws_manager.default_class`.
    pub default_class: String,
    /// User ids that are administrators at the unix socket. Root; a server that runs as another user adds its own.
    pub local_admin_uids: Vec<u32>,
    /// Seconds without a request after which a browser session ends.
    pub session_idle_seconds: u32,
    /// Seconds after which a browser session ends in any case.
    pub session_absolute_seconds: u32,
    /// Days until a personal access token expires when the request says nothing.
    pub token_default_days: u32,
    /// Days of the longest life of a personal access token.
    pub token_max_days: u32,
    /// Sustained requests per second of one principal. The unix socket's administrator has no limit.
    pub requests_per_second: u32,
    /// Requests that one principal may make in a burst, above the sustained rate.
    pub request_burst: u32,
    /// Logins and set-up attempts per minute from one address, and for one account.
    pub logins_per_minute: u32,
    /// Passwords hashed at the same time; each takes 19 MiB while it is hashed.
    pub password_hashers: u32,
    /// Seconds that `start`, `stop` and `delete` wait for the work to be done before they answer 202.
    pub wait_seconds: u32,
    /// Seconds between two reconciliations of the instances with ws-manager.
    pub reconcile_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1:7070".to_owned(),
            default_class: "small".to_owned(),
            local_admin_uids: vec![0],
            session_idle_seconds: 12 * 3600,
            session_absolute_seconds: 7 * 24 * 3600,
            token_default_days: 90,
            token_max_days: 366,
            requests_per_second: 200,
            request_burst: 1000,
            logins_per_minute: 10,
            password_hashers: 2,
            wait_seconds: 900,
            reconcile_seconds: 60,
        }
    }
}

/// A setting that cannot be right.
#[derive(Debug, thiserror::Error)]
#[error("api.{field} is {value:?}: {remedy}")]
pub struct InvalidConfig {
    /// Name of the setting.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What to write instead.
    pub remedy: &'static str,
}

impl Config {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The first setting that cannot be right.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let url = self.public_url.as_str();
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {}
            _ => {
                return Err(InvalidConfig {
                    field: "public_url",
                    value: self.public_url.clone(),
                    remedy: "write scheme, host and port only, for example https://berth.example.com",
                });
            }
        }
        let positive: [(&'static str, u32); 9] = [
            ("session_idle_seconds", self.session_idle_seconds),
            ("session_absolute_seconds", self.session_absolute_seconds),
            ("token_max_days", self.token_max_days),
            ("requests_per_second", self.requests_per_second),
            ("request_burst", self.request_burst),
            ("logins_per_minute", self.logins_per_minute),
            ("password_hashers", self.password_hashers),
            ("wait_seconds", self.wait_seconds),
            ("reconcile_seconds", self.reconcile_seconds),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(InvalidConfig { field, value: "0".to_owned(), remedy: "use at least 1" });
            }
        }
        if self.token_default_days == 0 || self.token_default_days > self.token_max_days {
            return Err(InvalidConfig {
                field: "token_default_days",
                value: self.token_default_days.to_string(),
                remedy: "use at least 1 and at most token_max_days",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_bad_url_is_named() {
        Config::default().validate().unwrap();
        for url in ["berth.example.com", "https://", "https://a/b", "ftp://a", "https://user@a"] {
            let error = Config { public_url: url.into(), ..Config::default() }.validate().unwrap_err();
            assert_eq!(error.field, "public_url", "{url}");
        }
    }
}
