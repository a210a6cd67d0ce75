//! Shapes of the public API, `/api/v1`.

use berth_ids::{AuditId, InstanceId, OrganizationId, SessionId, TokenId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a workspace is in its life; a workspace that never started is `Stopped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// Accepted, not placed yet.
    #[default]
    Pending,
    /// Its image is being built.
    Imagebuild,
    /// Image, disk and network are being made.
    Creating,
    /// The content is being made.
    Initializing,
    /// The user can work.
    Running,
    /// Being stopped.
    Stopping,
    /// Nothing runs, the disk is safe.
    Stopped,
}

/// A timed part of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `resolve`, `authorize`, `create`, `place`, `image`, `disk`, `network`, `container`, `checkout`, `ready`.
    pub name: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Microseconds it took; none while under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// What is going on, for example `pulling 12 of 80 MB`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Unique among its owner's workspaces.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it is there, for people; empty while all is well.
    pub reason: String,
    /// Web URL of the repository.
    pub repository: String,
    /// Branch or tag it was made for; none: a commit, or an empty repository.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Commit it was made at.
    pub commit: Option<String>,
    /// The context URL as given.
    pub context_url: String,
    /// Folder of the checkout inside.
    pub checkout_path: String,
    /// Workspace class.
    pub class: String,
    /// Image asked for; none: by devcontainer.json or the base image.
    pub image: Option<String>,
    /// Its owner.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// Its newest run.
    pub instance_id: Option<InstanceId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its newest run became Running.
    pub started_at: Option<DateTime<Utc>>,
    /// When its newest run stopped.
    pub stopped_at: Option<DateTime<Utc>>,
    /// The inactivity timeout is near: what to tell the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_warning: Option<String>,
    /// How its newest start spent its time.
    pub receipt: Receipt,
}

/// The steps of a start, each with its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// In order of their beginning.
    pub steps: Vec<Step>,
    /// Microseconds from the request to Running; none until then.
    pub total_us: Option<u64>,
}

/// `POST /api/v1/workspaces`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Repository, branch, tag, commit, pull request, issue, file or folder on a git host.
    #[schema(min_length = 1, max_length = 4096)]
    pub context_url: String,
    /// Workspace class; none: the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Lower-case letters, digits and dashes, at most 63; none: made from the repository's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub name: Option<String>,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Start it at once (default), or leave it stopped.
    #[serde(default = "yes")]
    pub start: bool,
    /// Organization that pays; none: the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrganizationId>,
    /// Seconds without activity until it stops; none: default; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_seconds: Option<u32>,
}

const fn yes() -> bool {
    true
}

/// `PATCH /api/v1/workspaces/{workspace}`; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub name: Option<String>,
    /// Seconds without activity until it stops; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_seconds: Option<u32>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Cursor of the next page, for `?cursor=`; none: this was the last.
    pub next_cursor: Option<String>,
}

/// A personal access token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What its owner calls it.
    pub name: String,
    /// First characters of the secret, to recognise it.
    pub prefix: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// `POST /api/v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What to call it.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Days until it ends; none: 90; at most 366.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 366)]
    pub expires_in_days: Option<u32>,
}

/// The answer: the only time the secret is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// `berth_pat_…`; it is not shown again.
    pub secret: String,
}

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// For people.
    pub name: String,
    /// Address of the account; unique.
    pub email: String,
    /// Git's `user.email` in their workspaces; `name` is git's `user.name`.
    #[serde(default)]
    pub git_email: String,
    /// May do everything in the installation.
    pub admin: bool,
}

/// `PATCH /api/v1/users/me`; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// For people, and git's `user.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// Git's `user.email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_email: Option<String>,
}

/// `POST /api/v1/users`, for administrators.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Address of the account; unique.
    #[schema(format = Email)]
    pub email: String,
    /// 12 to 256 characters; they change it after the first login.
    #[schema(min_length = 12, max_length = 256)]
    pub password: String,
    /// May do everything in the installation.
    #[serde(default)]
    pub admin: bool,
}

/// `PUT /api/v1/users/me/password`. Ends every other session of the user.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one that holds now; not asked of an account that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The new one, 12 to 256 characters.
    #[schema(min_length = 12, max_length = 256)]
    pub new: String,
}

/// `POST /api/v1/setup`: makes the first administrator, once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// From the link that `berth server` showed.
    pub token: String,
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Address of the account.
    #[schema(format = Email)]
    pub email: String,
    /// 12 to 256 characters.
    #[schema(min_length = 12, max_length = 256)]
    pub password: String,
}

/// `GET /api/v1/setup`: the one thing that anybody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetupStatus {
    /// A first administrator was made.
    pub set_up: bool,
}

/// `POST /api/v1/sessions`: a login. The answer sets the cookie `__Host-berth_session`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Address of the account.
    pub email: String,
    /// Its password.
    pub password: String,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who is signed in.
    pub user_id: UserId,
    /// It is the one that asks.
    pub current: bool,
    /// When they signed in.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub expires_at: DateTime<Utc>,
    /// Where they signed in from.
    pub address: Option<String>,
    /// The program, as it calls itself.
    pub user_agent: Option<String>,
}

/// What a member may do in an organization; the order is by power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationRole {
    /// Works in it: workspaces of their own that it pays for.
    Member,
    /// Also its members and settings; sees, stops and deletes everybody's workspaces in it.
    Owner,
}

/// An organization, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// For people.
    pub name: String,
    /// The one that every user has for themself.
    pub personal: bool,
    /// The asker's role; none: an administrator who is no member.
    pub role: Option<OrganizationRole>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// `POST /api/v1/organizations`; the maker is its first owner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
}

/// `PATCH /api/v1/organizations/{organization}`; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateOrganization {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
}

/// A member of an organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// Address of the account.
    pub email: String,
    /// What they may do.
    pub role: OrganizationRole,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// `POST /api/v1/organizations/{organization}/members`: adds somebody who has an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// Address of their account.
    #[schema(min_length = 1)]
    pub email: String,
    /// What they may do.
    pub role: OrganizationRole,
}

/// `PUT /api/v1/organizations/{organization}/members/{user}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMember {
    /// What they may do from now on.
    pub role: OrganizationRole,
}

/// An event of `GET /api/v1/workspaces/watch` and `GET /api/v1/workspaces/{workspace}/watch`, as the `data:` of one server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// The workspace as it is now: each one at the beginning, then after each change.
    Workspace {
        /// It.
        workspace: Box<Workspace>,
    },
    /// Everything there is was sent; what follows is news.
    Synced,
    /// It was deleted, or is no longer the caller's to see.
    Deleted {
        /// Which one.
        id: WorkspaceId,
    },
}

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
    /// Who; none: nobody was signed in.
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
    /// How it ended.
    pub result: AuditResult,
    /// What changed, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<serde_json::Value>,
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
