//! What services ask each other. The path of each call is in `docs/architecture.md`.

use std::collections::BTreeMap;

use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::context::ResolvedContext;
use crate::public::{Phase, Resources, Step};

/// scm: `POST /internal/contexts/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveContext {
    /// As the user gave it.
    pub url: String,
    /// Whose credentials may be used.
    pub user_id: UserId,
}

/// scm's answer: the resolved context, and which `host:port` the workspace may reach although it is private.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveContextReply {
    /// What it is.
    pub resolved: ResolvedContext,
    /// Allowed private hosts that this repository needs.
    #[serde(default)]
    pub allow_private_hosts: Vec<String>,
}

/// scm: `POST /internal/private-hosts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrivateHostsQuery {
    /// Of the repository, as it was resolved.
    pub clone_url: String,
}

/// Which `host:port` a workspace may reach although it is private.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrivateHosts {
    /// Allowed private hosts that the repository needs.
    pub allow_private_hosts: Vec<String>,
}

/// scm: `POST /internal/git-credentials/lookup`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookupGitCredential {
    /// The instance that asks; the caller proved that the question came from its supervisor socket.
    pub instance_id: InstanceId,
    /// Its owner.
    pub user_id: UserId,
    /// Host git wants to talk to, as in the clone URL.
    pub host: String,
    /// Host of the repository the workspace was made for.
    pub repository_host: String,
}

/// scm's answer; `None` if the user has no credential for the host.
#[derive(Clone, Serialize, Deserialize)]
pub struct GitCredentialReply {
    /// User name for basic authentication.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for GitCredentialReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitCredentialReply").field("username", &self.username).finish_non_exhaustive()
    }
}

/// ws-manager: `POST /internal/instances`. Idempotent by `instance_id`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartInstance {
    /// The run to begin.
    pub instance_id: InstanceId,
    /// The workspace it is a run of.
    pub workspace_id: WorkspaceId,
    /// Its name, also the host name inside.
    pub workspace_name: String,
    /// Who owns it.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// Workspace class.
    pub class: String,
    /// Image asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What is checked out on the first start.
    pub context: ResolvedContext,
    /// Git's `user.name`.
    pub git_name: String,
    /// Git's `user.email`.
    pub git_email: String,
    /// Seconds without activity; `None`: the default; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_seconds: Option<u32>,
    /// Environment of every process inside.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Private `host:port` that it may reach.
    #[serde(default)]
    pub allow_private_hosts: Vec<String>,
}

/// ws-manager: `POST /internal/instances/{id}/stop`. Idempotent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StopInstance {
    /// Shown to the user as the reason.
    #[serde(default)]
    pub reason: String,
    /// Content need not be kept (the workspace is being deleted).
    #[serde(default)]
    pub abort: bool,
}

/// ws-manager: `PUT /internal/instances/{id}/timeout`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetTimeout {
    /// Seconds without activity; 0: never.
    pub inactivity_seconds: u32,
}

/// ws-manager's word on an instance: `GET /internal/instances[/{id}]`, and each event of `GET /internal/instances/watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which run.
    pub instance_id: InstanceId,
    /// The workspace's id.
    pub workspace_id: WorkspaceId,
    /// Who owns it.
    pub owner_id: UserId,
    /// Grows with each change of this instance (the resource version); a smaller one is stale.
    pub version: u64,
    /// Where it is.
    pub phase: Phase,
    /// Why, for the user; empty while all is well.
    #[serde(default)]
    pub reason: String,
    /// The instance failed (`reason` says how).
    #[serde(default)]
    pub failed: bool,
    /// Node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Digest of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// What it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Steps timed so far.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Begin of the billable interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// End of the billable interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<DateTime<Utc>>,
    /// Last activity of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<DateTime<Utc>>,
    /// The inactivity timeout is near: what to tell the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_warning: Option<String>,
}

/// An event of the watch stream, as the `data:` of one server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InstanceEvent {
    /// The state now, at the beginning and after each change.
    Status(Box<InstanceStatus>),
    /// Everything that exists was sent; what follows is news. What was not sent does not exist.
    Synced,
    /// The instance is over and its object removed; its last status came before.
    Gone {
        /// Which run.
        instance_id: InstanceId,
    },
}

/// api: `POST /internal/authorize`. Whose token this is, and whether they may do this to the workspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorize {
    /// Value of the client's `Authorization` header, whole; none for the unix socket's admin.
    pub authorization: Option<String>,
    /// Value of the client's `Cookie` header, whole.
    #[serde(default)]
    pub cookie: Option<String>,
    /// The client's `Origin` header: a cookie counts only in requests of our own pages.
    #[serde(default)]
    pub origin: Option<String>,
    /// The client's `Sec-Fetch-Site` header.
    #[serde(default)]
    pub fetch_site: Option<String>,
    /// The client's request changes something or opens a socket. When nobody says, it does.
    #[serde(default = "yes")]
    pub unsafe_request: bool,
    /// The request came over the server's unix socket from root (peer credentials were checked).
    #[serde(default)]
    pub local_admin: bool,
    /// Id or name of the workspace.
    pub workspace: String,
    /// What they want.
    pub action: WorkspaceAction,
    /// The request came past api's rate limits: it counts here.
    #[serde(default)]
    pub uncounted: bool,
    /// What they are about to do, for the audit log: the row is written when they may.
    #[serde(default)]
    pub act: Option<Act>,
}

/// Something done in a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// `workspace.exec`, ...
    pub name: String,
    /// Which program, which file; never a secret.
    pub detail: serde_json::Value,
}

const fn yes() -> bool {
    true
}

/// What a user may do to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceAction {
    /// See it.
    Read,
    /// Run commands, terminals, copies.
    Exec,
    /// Reach its ports.
    Connect,
}

/// api's answer, 200 when allowed; else a problem (401, 404).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorized {
    /// Who.
    pub user_id: UserId,
    /// Their address, for the audit log.
    #[serde(default)]
    pub actor: String,
    /// What they showed, as the audit log names it: `token:<id>`, `session:<id>`, `local`.
    #[serde(default)]
    pub credential: String,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Its name.
    #[serde(default)]
    pub workspace_name: String,
    /// Its newest instance, if it ever started.
    pub instance_id: Option<InstanceId>,
    /// Where that is.
    pub phase: Phase,
    /// Node it runs on.
    #[serde(default)]
    pub node: Option<String>,
}

/// api: `GET /internal/workspaces/{id}`: what other services need to know of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceInfo {
    /// As its owner sees it.
    pub workspace: crate::public::Workspace,
    /// What it was made for.
    pub context: ResolvedContext,
    /// Private `host:port` that it may reach.
    pub allow_private_hosts: Vec<String>,
    /// Node its newest run is on.
    #[serde(default)]
    pub node: Option<String>,
}

/// A row of the outbox, topic `instance`: what billing and automations live from. Written by api in the transaction that changes the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceLifecycle {
    /// Which run.
    pub instance_id: InstanceId,
    /// The workspace's id.
    pub workspace_id: WorkspaceId,
    /// Its name at the time.
    pub workspace_name: String,
    /// Who owns it.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// `host/owner/name` of the repository.
    pub repository: String,
    /// Workspace class.
    pub class: String,
    /// Where it is now.
    pub phase: Phase,
    /// First start of this workspace (content was made just now).
    #[serde(default)]
    pub first_start: bool,
    /// Begin of the billable interval.
    pub started_at: Option<DateTime<Utc>>,
    /// End of the billable interval.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Version of the status it was made from.
    pub version: u64,
}

/// A row of the outbox, topic `workspace`: what other services keep of a workspace is of no use any more. Written by api in the transaction
/// after which nobody sees the workspace; its last run's events of the topic `instance` come before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// It was deleted, with its disk.
    Deleted {
        /// Which.
        workspace_id: WorkspaceId,
    },
}

/// A row of the outbox, topic `audit`: what another service did for somebody, for api's audit log. Written in the transaction that did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor_id: UserId,
    /// Their address then.
    pub actor: String,
    /// What they showed: `token:<id>`, `session:<id>`, `local`.
    pub credential: String,
    /// `git_credential.set`, ...
    pub action: String,
    /// `git_credential`, ...
    pub target_type: String,
    /// Its id, or the id of the workspace that it is in.
    #[serde(default)]
    pub target_id: Option<uuid::Uuid>,
    /// Its name; never a secret.
    pub target: String,
}

/// A workspace class, as `GET /internal/classes` of ws-manager gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Class {
    /// Name, for `--class`.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of disk.
    pub disk_bytes: i64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes per second of disk traffic in each direction; null: unlimited.
    pub io_bytes_per_second: Option<i64>,
    /// `sudo` does not work.
    pub no_new_privileges: bool,
    /// Credits per hour, a decimal number.
    pub credits_per_hour: String,
}
