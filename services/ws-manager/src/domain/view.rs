//! What the rules may look at besides the workspace itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_workspace_crd::{Condition, ConditionType, Disk, LABEL_ATTEMPT, Workspace, WorkspaceClass, WorkspaceStatus};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::config::Policy;

/// Everything around one instance at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Pods of this instance, any attempt.
    pub pods: &'a [Arc<Pod>],
    /// Every node.
    pub nodes: &'a Nodes,
    /// Disk of the workspace, once a node agent has made it.
    pub disk: Option<&'a Disk>,
    /// Class of the workspace; `None`: it does not exist (any more).
    pub class: Option<&'a WorkspaceClass>,
    /// The installation's limits.
    pub policy: &'a Policy,
    /// One read of the clock serves the whole decision.
    pub now: DateTime<Utc>,
}

impl<'a> View<'a> {
    /// The pod of an attempt.
    #[must_use]
    pub fn pod(&self, attempt: u32) -> Option<&'a Pod> {
        self.pods.iter().map(Arc::as_ref).find(|pod| attempt_of(pod) == Some(attempt))
    }

    /// The newest attempt that has a pod; 0 when there is none.
    #[must_use]
    pub fn newest_attempt(&self) -> u32 {
        self.pods.iter().filter_map(|pod| attempt_of(pod)).max().unwrap_or(0)
    }
}

/// The attempt a pod was made for.
#[must_use]
pub fn attempt_of(pod: &Pod) -> Option<u32> {
    pod.metadata.labels.as_ref()?.get(LABEL_ATTEMPT)?.parse().ok()
}

/// Node a pod is bound to.
#[must_use]
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The condition of the current attempt, or of the whole instance.
#[must_use]
pub fn current(status: &WorkspaceStatus, kind: ConditionType) -> Option<&Condition> {
    status.condition(kind).filter(|condition| condition.attempt == 0 || condition.attempt == status.attempt)
}

/// Whether this condition exists and is True.
#[must_use]
pub fn holds(status: &WorkspaceStatus, kind: ConditionType) -> bool {
    current(status, kind).is_some_and(|condition| condition.status == berth_workspace_crd::ConditionStatus::True)
}

/// Whether this condition exists and is False.
#[must_use]
pub fn denied(status: &WorkspaceStatus, kind: ConditionType) -> Option<&Condition> {
    current(status, kind).filter(|condition| condition.status == berth_workspace_crd::ConditionStatus::False)
}

/// Nodes by name, and whether each takes pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes(BTreeMap<String, bool>);

impl Nodes {
    /// From node objects.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        Self(
            nodes
                .into_iter()
                .filter_map(|node| node.metadata.name.clone().map(|name| (name, is_ready(node))))
                .collect(),
        )
    }

    /// Whether the node object is there.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the node is there, ready and not cordoned.
    #[must_use]
    pub fn is_ready(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }

    /// Names of those that take pods.
    pub fn ready(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, ready)| **ready).map(|(name, _)| name.as_str())
    }
}

/// Ready, and not marked unschedulable.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let ready = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    ready && !cordoned
}

/// The finalizers of the workspace, and whether it is being deleted.
#[must_use]
pub fn is_deleted(workspace: &Workspace) -> bool {
    workspace.metadata.deletion_timestamp.is_some()
}
