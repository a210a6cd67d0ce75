//! `automations.yaml`: tasks and services of a repository.
//!
//! The file is read strictly: an unknown key, a reference to nothing or a cycle is refused with its line and column, because a key that is
//! silently ignored is a task that silently never runs.

mod read;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use read::{parse, parse_bytes};

/// Where the file is looked for in a repository, in this order.
pub const PATHS: [&str; 3] = [".berth/automations.yaml", ".ona/automations.yaml", ".gitpod/automations.yaml"];
/// Longest file that is read.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Most tasks and services in a file.
pub const MAX_UNITS: usize = 200;

/// A message about a place in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// The file was refused: everything that is wrong with it, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Refused(pub Vec<Finding>);

/// An automations file, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutomationsFile {
    /// Services by key.
    pub services: BTreeMap<String, Service>,
    /// Tasks by key.
    pub tasks: BTreeMap<String, Task>,
    /// Keys that are accepted and have no effect yet.
    pub warnings: Vec<Finding>,
}

/// A service: runs until it is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its role in the user interface.
    pub role: Role,
    /// `commands.start`: the service itself; must stay in the foreground.
    pub start: String,
    /// `commands.ready`: run again and again until it exits with 0.
    pub ready: Option<String>,
    /// `commands.stop`.
    pub stop: Option<String>,
    /// Longest time until it is ready; `None`: no limit.
    pub readiness_timeout: Option<Duration>,
    /// When it starts by itself.
    pub triggered_by: Vec<Trigger>,
    /// Keys of what must be done, or ready, before.
    pub depends_on: Vec<String>,
}

/// A task: runs to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// `None`: it only stands for what it depends on.
    pub command: Option<String>,
    /// When it starts by itself.
    pub triggered_by: Vec<Trigger>,
    /// Keys of what must be done, or ready, before.
    pub depends_on: Vec<String>,
    /// A prebuild fails when this task does.
    pub prebuild_requires_success: bool,
}

/// The role of a service in the user interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nothing special.
    #[default]
    Default,
    /// An editor.
    Editor,
    /// A coding assistant.
    AiAgent,
}

/// When a task or service starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// Never: a person starts it.
    Manual,
    /// At every start of the workspace.
    PostEnvironmentStart,
    /// At the first start of the workspace.
    PostDevcontainerStart,
    /// In prebuilds.
    Prebuild,
    /// Before a snapshot.
    BeforeSnapshot,
    /// When the machine started.
    PostMachineStart,
}

impl Trigger {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Manual,
        Self::PostEnvironmentStart,
        Self::PostDevcontainerStart,
        Self::Prebuild,
        Self::BeforeSnapshot,
        Self::PostMachineStart,
    ];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::PostEnvironmentStart => "postEnvironmentStart",
            Self::PostDevcontainerStart => "postDevcontainerStart",
            Self::Prebuild => "prebuild",
            Self::BeforeSnapshot => "beforeSnapshot",
            Self::PostMachineStart => "postMachineStart",
        }
    }

    /// Whether something makes it fire.
    #[must_use]
    pub const fn fires(self) -> bool {
        matches!(self, Self::Manual | Self::PostEnvironmentStart | Self::PostDevcontainerStart)
    }
}

impl AutomationsFile {
    /// What a key depends on; `None` if there is no such key.
    #[must_use]
    pub fn depends_on(&self, key: &str) -> Option<&[String]> {
        self.tasks
            .get(key)
            .map(|task| task.depends_on.as_slice())
            .or_else(|| self.services.get(key).map(|service| service.depends_on.as_slice()))
    }

    /// Keys that one of these triggers starts, in order.
    #[must_use]
    pub fn triggered(&self, triggers: &[Trigger]) -> Vec<String> {
        let fits = |triggered_by: &[Trigger]| triggered_by.iter().any(|trigger| triggers.contains(trigger));
        let tasks = self.tasks.iter().filter(|(_, task)| fits(&task.triggered_by)).map(|(key, _)| key);
        let services = self.services.iter().filter(|(_, service)| fits(&service.triggered_by)).map(|(key, _)| key);
        let mut keys: Vec<String> = tasks.chain(services).cloned().collect();
        keys.sort_unstable();
        keys
    }
}
