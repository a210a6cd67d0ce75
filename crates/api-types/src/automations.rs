//! Tasks and services of the public API.

use std::collections::BTreeMap;

use berth_ids::{ExecutionId, InstanceId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Task or service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutomationKind {
    /// Runs to its end.
    Task,
    /// Runs until it is stopped.
    Service,
}

/// Phase of a task or service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum AutomationPhase {
    /// It never ran in this workspace.
    Idle,
    /// It waits for what it depends on.
    Pending,
    /// It was started; a service is not ready yet.
    Starting,
    /// A task at work, or a ready service.
    Running,
    /// It is being stopped.
    Stopping,
    /// It was stopped, or a service ended by itself without an error.
    Stopped,
    /// A task ended without an error.
    Succeeded,
    /// It ended with an error, or could not be started.
    Failed,
}

impl AutomationPhase {
    /// Nothing of it goes on.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Idle | Self::Stopped | Self::Succeeded | Self::Failed)
    }
}

/// A task or service of a workspace, with its newest run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Automation {
    /// Key in the automations file, unique in the workspace.
    pub reference: String,
    /// Task or service.
    pub kind: AutomationKind,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Services: `default`, `editor` or `ai-agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where its newest run is.
    pub phase: AutomationPhase,
    /// Why, for people; empty while all is well.
    pub reason: String,
    /// When it starts by itself.
    pub triggered_by: Vec<String>,
    /// Those of `triggered_by` that nothing fires yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_fired_yet: Vec<String>,
    /// Keys of what must be done, or ready, before.
    pub depends_on: Vec<String>,
    /// Its newest run.
    pub execution: Option<AutomationExecution>,
}

/// One run of a task or service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AutomationExecution {
    /// Its id.
    pub id: ExecutionId,
    /// Run of the workspace it belongs to.
    pub instance_id: InstanceId,
    /// A trigger, `manual`, or `dependency`.
    pub started_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its command was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When a service became ready.
    pub ready_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Exit code of its command; 128 plus the number for a signal.
    pub exit_code: Option<i32>,
    /// What the command wrote as `key=value` lines to the file that `BERTH_OUTPUT` names.
    pub outputs: BTreeMap<String, String>,
}

/// The automations file of a workspace, as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AutomationsFileStatus {
    /// `unread`, `absent`, `applied`, `refused` or `unreadable`.
    pub state: String,
    /// Path in the repository; empty when there is none.
    pub path: String,
    /// What is wrong with it.
    pub errors: Vec<FileFinding>,
    /// What is accepted and has no effect yet.
    pub warnings: Vec<FileFinding>,
}

/// A message about a place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileFinding {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// `GET /api/v1/workspaces/{workspace}/tasks` and `.../services`: all of them, there are at most 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AutomationList {
    /// By key.
    pub items: Vec<Automation>,
    /// The file they come from.
    pub file: AutomationsFileStatus,
}
