//! Shapes of the public API, `/api/v1`.

mod audit;
mod organizations;
mod sessions;
mod tokens;
mod users;
mod workspaces;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use audit::{AuditEntry, AuditResult};
pub use organizations::{
    AddMember, CreateOrganization, Member, Organization, OrganizationRole, UpdateMember, UpdateOrganization,
};
pub use sessions::{Login, Session, Setup, SetupStatus};
pub use tokens::{CreateToken, CreatedToken, Token};
pub use users::{ChangePassword, CreateUser, UpdateUser, User};
pub use workspaces::{
    CreateWorkspace, Phase, Receipt, Resources, RuntimePhase, Step, UpdateWorkspace, Workspace, WorkspaceEvent,
};

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Cursor of the next page, for `?cursor=`; null: this was the last.
    pub next_cursor: Option<String>,
}

/// `GET /api/v1/server`, and `berth server status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// Version of the server.
    pub version: String,
    /// Process id of the server.
    pub pid: u32,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// A first administrator was made.
    pub set_up: bool,
    /// Where browsers and other machines reach it.
    #[serde(default)]
    pub public_url: String,
}
