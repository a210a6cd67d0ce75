//! The `Workspace` custom resource: one instance.

use std::collections::BTreeMap;

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, ConditionStatus, ConditionType};

/// What should run. Immutable but for `timeouts`: another class or repository is another instance.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "berth.dev",
    version = "v1",
    kind = "Workspace",
    doc = "One run of a workspace: from its start until it has stopped.",
    plural = "workspaces",
    shortname = "ws",
    namespaced,
    status = "WorkspaceStatus",
    selectable = ".spec.workspaceId",
    selectable = ".spec.ownerId",
    selectable = ".spec.workspaceName",
    selectable = ".spec.class",
    selectable = ".status.phase",
    printcolumn = r#"{"name":"Workspace","type":"string","jsonPath":".spec.workspaceName"}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) == has(oldSelf.image)").message(IMMUTABLE))]
pub struct WorkspaceSpec {
    /// The durable workspace (UUID).
    #[schemars(regex(pattern = UUID))]
    #[x_kube(validation = immutable())]
    pub workspace_id: String,
    /// Its name, also the host name inside (RFC 1123 label).
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    #[x_kube(validation = immutable())]
    pub workspace_name: String,
    /// Who owns it (UUID).
    #[schemars(regex(pattern = UUID))]
    #[x_kube(validation = immutable())]
    pub owner_id: String,
    /// Who pays for it (UUID).
    #[schemars(regex(pattern = UUID))]
    #[x_kube(validation = immutable())]
    pub organization_id: String,
    /// What kind of run this is.
    #[serde(default, rename = "type")]
    #[x_kube(validation = immutable())]
    pub kind: InstanceType,
    /// Name of a `WorkspaceClass`.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    #[x_kube(validation = immutable())]
    pub class: String,
    /// Image reference; absent: `image` of the repository's devcontainer.json, else the base image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = IMAGE))]
    #[x_kube(validation = immutable())]
    pub image: Option<String>,
    /// What is checked out.
    #[x_kube(validation = immutable())]
    pub checkout: Checkout,
    /// Git's `user.name` and `user.email` inside.
    #[serde(default)]
    #[x_kube(validation = immutable())]
    pub git: GitIdentity,
    /// When it stops by itself.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Environment of every process inside; never secrets.
    #[serde(default)]
    #[x_kube(validation = immutable())]
    pub env: BTreeMap<String, String>,
    /// `host:port` of private or loopback addresses that this workspace may reach.
    #[serde(default)]
    #[schemars(inner(regex(pattern = HOST_PORT)))]
    #[x_kube(validation = immutable())]
    pub allow_private_hosts: Vec<String>,
}

const IMMUTABLE: &str =
    "cannot be changed while the instance lives: stop it, and start the workspace with other settings";

fn immutable() -> Rule {
    Rule::new("self == oldSelf").message(IMMUTABLE)
}

// What the schema asks of texts, in the syntax that RE2 (kube-apiserver) and Rust have in common. Who uses a text checks it again: a rule
// that no pattern can say, like no `..` in a path, is the node agent's alone.
const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
const SUBDOMAIN: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";
const IMAGE: &str = r"^[A-Za-z0-9\[][A-Za-z0-9\[\]._:/@+-]*$";
const HOST: &str = r"^[a-z0-9\[][a-z0-9.:\[\]_-]*$";
const HOST_PORT: &str = r"^[A-Za-z0-9\[][A-Za-z0-9.:\[\]_-]*:[0-9]{1,5}$";
const CLONE_URL: &str = r"^https?://[^\x00-\x20\x7f/@]+/[^\x00-\x20\x7f]+$";
const COMMIT: &str = "^([0-9a-f]{40}|[0-9a-f]{64})$";
/// git-check-ref-format(1), as far as a pattern can.
const REF: &str = r"^refs/[^\x00-\x20\x7f~^:?*\[\\]+$";
const BRANCH: &str = r"^[^-\x00-\x20\x7f~^:?*\[\\][^\x00-\x20\x7f~^:?*\[\\]*$";
const FOLDER: &str = r"^/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/]$";
const LINE: &str = r"^[^\x00-\x1f\x7f]*$";

/// Why an instance runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InstanceType {
    /// A user works in it.
    #[default]
    Regular,
    /// Prepares a layer for later starts, headless.
    Prebuild,
    /// Builds an image, headless.
    ImageBuild,
}

/// The content a workspace begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkout {
    /// The repository.
    pub repository: Repository,
    /// Full ref name to fetch, for example `refs/heads/main` or `refs/pull/7/head`; absent: the commit alone, or an empty repository.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = REF))]
    pub reference: Option<String>,
    /// Branch to check out; absent: a detached head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = BRANCH))]
    pub branch: Option<String>,
    /// Commit to be at, hexadecimal; none only for an empty repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = COMMIT))]
    pub commit: Option<String>,
    /// Absolute folder inside, for example `/workspace/hello`.
    #[schemars(length(max = 4096), regex(pattern = FOLDER))]
    pub path: String,
}

/// Where the code comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// URL for git, without credentials.
    #[schemars(length(max = 4096), regex(pattern = CLONE_URL))]
    pub clone_url: String,
    /// Host with a port that is not the default, lower case.
    #[schemars(length(min = 1, max = 262), regex(pattern = HOST))]
    pub host: String,
    /// Everything before the repository's name.
    #[schemars(length(max = 1024), regex(pattern = LINE))]
    pub owner: String,
    /// Its name.
    #[schemars(length(min = 1, max = 1024), regex(pattern = LINE))]
    pub name: String,
}

/// Who commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitIdentity {
    /// `user.name`.
    #[serde(default)]
    #[schemars(length(max = 1024), regex(pattern = LINE))]
    pub name: String,
    /// `user.email`.
    #[serde(default)]
    #[schemars(length(max = 1024), regex(pattern = LINE))]
    pub email: String,
}

/// When an instance stops by itself, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Without activity; absent: the installation's default; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_seconds: Option<u32>,
    /// In any case; absent: the installation's default; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_seconds: Option<u32>,
}

/// Where an instance is in its life. Within one attempt it moves forward only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Accepted, not placed yet.
    #[default]
    Pending,
    /// Its image is being built.
    Imagebuild,
    /// On a node: image, disk and network are being made.
    Creating,
    /// The content is being made.
    Initializing,
    /// The user can work.
    Running,
    /// Being stopped; the disk is brought to rest.
    Stopping,
    /// Nothing runs, the disk is safe.
    Stopped,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceStatus {
    /// Controller: where it is.
    #[serde(default)]
    pub phase: Phase,
    /// Controller: why it is there, for the user; empty while all is well.
    #[serde(default)]
    pub reason: String,
    /// Controller: attempt in work, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// By [`ConditionType`].
    #[serde(default)]
    pub conditions: BTreeMap<String, Condition>,
    /// Node agent: where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Node agent: digest of the image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Node agent: what the instance was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Node agent: the steps it timed, in order; a step without `durationMicros` is under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Controller: RFC 3339 with milliseconds; the billable interval begins (container running, content ready).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Controller: RFC 3339 with milliseconds; the billable interval ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    /// Internal API: RFC 3339; the user's last activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<String>,
}

/// What an instance was given: its class's limits at the time of its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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

/// A timed part of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `place`, `image`, `disk`, `network`, `container`, `checkout`, `ready`.
    pub name: String,
    /// RFC 3339 with microseconds.
    pub started_at: String,
    /// None while under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_micros: Option<u64>,
    /// What is going on, for example `pulling 12 of 80 MB`; once it is over, what is worth knowing of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Of `container`: how far the runtime was when (`hull --timeline`), in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<RuntimePhase>,
}

/// A part of what the OCI runtime does to make a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimePhase {
    /// `config`, `state`, `cgroup`, `namespaces`, `rootfs`, `init`, …
    pub name: String,
    /// Nanoseconds from the beginning of the runtime to the end of this phase. Phases overlap: runtime and container work side by side.
    pub ended_nanos: u64,
}

impl WorkspaceStatus {
    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.get(&format!("{kind:?}"))
    }

    /// Whether the condition is there and True.
    #[must_use]
    pub fn is(&self, kind: ConditionType) -> bool {
        self.condition(kind).is_some_and(|c| c.status == ConditionStatus::True)
    }
}
