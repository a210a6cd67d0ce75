//! Tasks and services: commands that the workspace runs for an automation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether `id` may name a unit: 1 to 128 of `A-Z a-z 0-9 _ - . :`.
pub fn is_unit_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

/// What kind of thing a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// Runs to its end: exit 0 is [`UnitState::Succeeded`].
    Task,
    /// Runs until stopped: exit 0 by itself is [`UnitState::Stopped`]. It is not started again by itself.
    Service,
}

/// A unit to run. Commands are given to the workspace's shell (`bash`, else `sh`) as `-c COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Name, unique in the workspace. See [`is_unit_id`].
    pub id: String,
    /// Task or service.
    pub kind: UnitKind,
    /// The command. It must stay in the foreground.
    pub command: String,
    /// Added to the workspace's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the workspace's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// As in [`Exec::user`](crate::Exec::user).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Services: run again and again, with growing pauses, until it exits 0; then the service is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Services: longest time in [`UnitState::Starting`]; it fails after that. Zero: no limit.
    #[serde(default)]
    pub ready_timeout_ms: u64,
    /// Run to stop it; then what is left gets SIGKILL. When it exits non-zero the unit has failed. Without: SIGTERM and SIGHUP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// How long stopping may take before SIGKILL.
    #[serde(default = "default_stop_grace_ms")]
    pub stop_grace_ms: u64,
}

/// Two minutes, as automations files expect.
fn default_stop_grace_ms() -> u64 {
    120_000
}

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// Started, not ready yet.
    Starting,
    /// A running task, or a ready service.
    Running,
    /// Being stopped.
    Stopping,
    /// Stopped on request, or a service that ended by itself with 0.
    Stopped,
    /// A task that ended with 0.
    Succeeded,
    /// Ended otherwise; [`UnitStatus::message`] says how.
    Failed,
}

impl UnitState {
    /// Whether nothing of the unit runs any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Succeeded | Self::Failed)
    }
}

/// A unit as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Of [`UnitSpec::id`].
    pub id: String,
    /// Of [`UnitSpec::kind`].
    pub kind: UnitKind,
    /// Where it is.
    pub state: UnitState,
    /// Counts the starts of this id, from 1.
    pub run: u64,
    /// Grows with every change of any unit: the order of events.
    pub version: u64,
    /// Of the command, inside the workspace, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How the command ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<crate::ExitStatus>,
    /// Why it failed, for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Unix time in milliseconds by the workspace's clock.
    pub started_at_ms: u64,
    /// When it became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// What the command wrote as `key=value` lines to the file named by `BERTH_OUTPUT` (at most 64 keys, values up to 4,096 bytes).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_few_characters_and_a_bounded_length() {
        for good in ["a", "web-1", "db_2", "task:build.1", &"x".repeat(128)] {
            assert!(is_unit_id(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(!is_unit_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_short_specification_has_the_documented_defaults() {
        let spec: UnitSpec = serde_json::from_str(r#"{"id":"a","kind":"service","command":"true"}"#).unwrap();
        assert_eq!(spec.stop_grace_ms, 120_000);
        assert_eq!(spec.ready_timeout_ms, 0);
    }
}
