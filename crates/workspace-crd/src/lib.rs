//! The custom resources of Berth, group `berth.dev`, version `v1`: what ws-manager, the node agent and `kubectl` share.
//!
//! A [`Workspace`] is one instance (one run). Its spec is what should run; its status is what does. ws-manager's controller owns `phase`,
//! `attempt` and its own conditions; the node agent owns its conditions, `node`, and the steps it timed. Both write merge patches of only
//! their own fields, without a resource version.

mod class;
mod conditions;
mod disk;
#[expect(unreachable_pub, reason = "the derive of the schema repeats the type inside a function")]
mod workspace;

pub use class::{WorkspaceClass, WorkspaceClassSpec};
pub use conditions::{Condition, ConditionStatus, ConditionType, conditions_patch};
pub use disk::{Disk, DiskSpec, DiskStatus};
pub use workspace::{
    Checkout, GitIdentity, InstanceType, Phase, Repository, Resources, RuntimePhase, Step, Timeouts, Workspace,
    WorkspaceSpec, WorkspaceStatus,
};

/// The namespace that holds Berth's objects.
pub const NAMESPACE: &str = "berth";
/// On `Workspace`: ws-manager releases it when the instance is Stopped and nothing of it is left. On `Pod`: the node agent releases it
/// when the container is gone and the disk is safe.
pub const FINALIZER: &str = "berth.dev/instance";
/// On `Disk`: the node agent releases it when the bytes are gone.
pub const DISK_FINALIZER: &str = "berth.dev/disk";
/// Pod label with the instance id.
pub const LABEL_INSTANCE: &str = "berth.dev/instance";
/// Pod label with the workspace id.
pub const LABEL_WORKSPACE: &str = "berth.dev/workspace";
/// Pod label with the attempt, decimal.
pub const LABEL_ATTEMPT: &str = "berth.dev/attempt";
/// Label on everything ws-manager makes; only objects that carry it are touched.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "berth";
/// Pod annotation: size of the workspace's disk in bytes, decimal.
pub const ANNOTATION_DISK_BYTES: &str = "berth.dev/disk-bytes";
/// Pod annotation: processes and threads at most, decimal.
pub const ANNOTATION_PIDS: &str = "berth.dev/pids";
/// Pod annotation: bytes per second of disk traffic, each direction, decimal; absent: no bound.
pub const ANNOTATION_IO: &str = "berth.dev/io-bytes-per-second";
/// Pod annotation: `true`: no process gains privileges by executing a program.
pub const ANNOTATION_NO_NEW_PRIVILEGES: &str = "berth.dev/no-new-privileges";
/// Name of the container in the pod that is the workspace.
pub const CONTAINER: &str = "workspace";
/// The runtime class whose handler is hull.
pub const RUNTIME_CLASS: &str = "hull";

/// The custom resource definitions, in the order to create them.
#[must_use]
pub fn definitions() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    use kube::CustomResourceExt as _;
    vec![WorkspaceClass::crd(), Disk::crd(), Workspace::crd()]
}
