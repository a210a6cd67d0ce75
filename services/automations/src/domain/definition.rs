//! A task or service as it is stored: what the file said, without the file.

use std::collections::BTreeMap;

use berth_api_types::automations::AutomationKind;
use berth_supervisor_client::protocol::{UnitKind, UnitSpec};
use serde::{Deserialize, Serialize};

use super::file::{AutomationsFile, Role, Trigger};
use super::plan::Graph;

/// How long a unit may take to stop before it is killed.
const STOP_GRACE_MS: u64 = 120_000;

/// What a task or service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) kind: AutomationKind,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) role: Role,
    /// `None`: a task that only stands for what it depends on.
    #[serde(default)]
    pub(crate) command: Option<String>,
    #[serde(default)]
    pub(crate) ready: Option<String>,
    #[serde(default)]
    pub(crate) ready_timeout_ms: u64,
    #[serde(default)]
    pub(crate) stop: Option<String>,
    #[serde(default)]
    pub(crate) triggered_by: Vec<Trigger>,
    #[serde(default)]
    pub(crate) depends_on: Vec<String>,
}

/// Definitions by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Definitions(pub(crate) BTreeMap<String, Definition>);

impl Graph for Definitions {
    fn depends_on(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(|definition| definition.depends_on.as_slice())
    }
}

impl From<&AutomationsFile> for Definitions {
    fn from(file: &AutomationsFile) -> Self {
        let tasks = file.tasks.iter().map(|(key, task)| {
            let definition = Definition {
                kind: AutomationKind::Task,
                name: task.name.clone(),
                description: task.description.clone(),
                role: Role::Default,
                command: task.command.clone(),
                ready: None,
                ready_timeout_ms: 0,
                stop: None,
                triggered_by: task.triggered_by.clone(),
                depends_on: task.depends_on.clone(),
            };
            (key.clone(), definition)
        });
        let services = file.services.iter().map(|(key, service)| {
            let timeout = service.readiness_timeout.map_or(0, |timeout| timeout.as_millis());
            let definition = Definition {
                kind: AutomationKind::Service,
                name: service.name.clone(),
                description: service.description.clone(),
                role: service.role,
                command: Some(service.start.clone()),
                ready: service.ready.clone(),
                ready_timeout_ms: u64::try_from(timeout).unwrap_or(u64::MAX),
                stop: service.stop.clone(),
                triggered_by: service.triggered_by.clone(),
                depends_on: service.depends_on.clone(),
            };
            (key.clone(), definition)
        });
        Self(tasks.chain(services).collect())
    }
}

impl Definition {
    /// What the supervisor is asked to run; `None` if there is nothing to run.
    pub(crate) fn unit(&self, key: &str) -> Option<UnitSpec> {
        Some(UnitSpec {
            id: key.to_owned(),
            kind: match self.kind {
                AutomationKind::Task => UnitKind::Task,
                AutomationKind::Service => UnitKind::Service,
            },
            command: self.command.clone()?,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            ready: self.ready.clone(),
            ready_timeout_ms: self.ready_timeout_ms,
            stop: self.stop.clone(),
            stop_grace_ms: STOP_GRACE_MS,
        })
    }
}
