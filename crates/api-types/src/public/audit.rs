//! The audit log.

use berth_ids::{AuditId, UserId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an audited act ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done.
    Done,
    /// They were not allowed to.
    Denied,
    /// It was tried and did not work.
    Failed,
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its id; they sort by time.
    pub id: AuditId,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; null: nobody was signed in.
    pub actor_id: Option<UserId>,
    /// Their address at the time, or what acted.
    pub actor: String,
    /// `token:<id>`, `session:<id>`, `local` or `none`.
    pub credential: String,
    /// For example `workspace.stop`.
    pub action: String,
    /// For example `workspace`.
    pub target_type: String,
    /// Which one.
    pub target_id: Option<String>,
    /// Its name at the time.
    pub target: String,
    /// Network address it came from; `unix` for the server's socket.
    pub address: String,
    /// The program, as it calls itself.
    pub user_agent: String,
    /// The result.
    pub result: AuditResult,
    /// What changed, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<serde_json::Value>,
}
