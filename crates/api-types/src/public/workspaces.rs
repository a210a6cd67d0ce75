//! Workspaces, their runs and what is told of them.

use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Phase of a workspace; one that never started is `Stopped`.
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
    /// Microseconds it took; null while it is in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// What is happening, for example `pulling 12 of 80 MB`; afterwards, what is worth knowing about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Of `container`: how far the OCI runtime was when, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<RuntimePhase>,
}

/// A part of what the OCI runtime does to make a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimePhase {
    /// `config`, `state`, `cgroup`, `namespaces`, `rootfs`, `init`, …
    pub name: String,
    /// Nanoseconds from the beginning of the runtime to the end of this phase. Phases overlap: runtime and container work side by side.
    pub ended_ns: u64,
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
    /// Why it is in this phase, for people; empty while all is well.
    pub reason: String,
    /// Web URL of the repository.
    pub repository: String,
    /// Branch or tag it was made for; null: a commit, or an empty repository.
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
    /// Image asked for; null: the one of devcontainer.json, or the base image.
    pub image: Option<String>,
    /// Digest of the image of its newest run; null until that is known.
    pub image_digest: Option<String>,
    /// What its newest run was given; null until it is ready.
    pub resources: Option<Resources>,
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

/// What a run was given: the limits of its class at the time of its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of disk.
    pub disk_bytes: i64,
    /// Processes and threads.
    pub pids: u32,
}

/// The steps of a start, each with its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// In order of their beginning.
    pub steps: Vec<Step>,
    /// Microseconds from the request to Running; null until then.
    pub total_us: Option<u64>,
}

/// `POST /api/v1/workspaces`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Repository, branch, tag, commit, pull request, issue, file or folder on a git host.
    #[schema(min_length = 1, max_length = 4096)]
    pub context_url: String,
    /// Workspace class; when absent, the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Lower-case letters, digits and dashes, at most 63; when absent, made from the repository's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub name: Option<String>,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Start it at once (default), or leave it stopped.
    #[serde(default = "yes")]
    pub start: bool,
    /// Organization that pays; when absent, the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrganizationId>,
    /// Seconds without activity until it stops; null: the default; 0: never.
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

/// An event of `GET /api/v1/workspaces/watch` and `GET /api/v1/workspaces/{workspace}/watch`, as the `data:` of one server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// The workspace as it is now: each one at the beginning, then after each change.
    Workspace {
        /// It.
        workspace: Box<Workspace>,
    },
    /// Everything that exists was sent; changes follow.
    Synced,
    /// It was deleted, or is no longer the caller's to see.
    Deleted {
        /// Which one.
        id: WorkspaceId,
    },
}
