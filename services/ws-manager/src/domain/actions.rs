//! What has to be done about an instance: a pure function of its computed status. Every action is idempotent: a controller that died before
//! it could record it may have done it already.

use berth_workspace_crd::{FINALIZER, Phase, Workspace, WorkspaceStatus};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::domain::binding::{Binding, bind};
use crate::domain::retry::{self, Retry};
use crate::domain::view::{self, View};
use crate::domain::{status, time};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the pod of this attempt, on this node or where the scheduler puts it.
    CreatePod {
        /// From 1.
        attempt: u32,
        /// None: the scheduler chooses.
        node: Option<String>,
    },
    /// Delete a pod: this very one, not another of the same name.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Seconds until SIGKILL; `None`: as the pod says.
        grace_seconds: Option<u32>,
    },
    /// Remove our finalizer from a pod that no node holds.
    ReleasePod {
        /// Its name.
        name: String,
        /// What holds it.
        hold: Hold,
    },
    /// Remove our finalizer from the workspace object: the instance is over.
    ReleaseWorkspace {
        /// What holds it.
        hold: Hold,
    },
    /// Delete the workspace object: the instance has been over for long.
    DeleteWorkspace,
}

/// A finalizer of ours on an object as it was seen: enough to remove it if nothing has changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of the object.
    pub uid: String,
    /// Of the object.
    pub version: String,
    /// The finalizers of others.
    pub rest: Vec<String>,
}

impl Hold {
    /// Our finalizer on an object; `None` if it has none.
    pub fn of<K: kube::Resource>(object: &K, finalizer: &str) -> Option<Self> {
        let (ours, rest): (Vec<_>, Vec<_>) = object.finalizers().iter().cloned().partition(|other| other == finalizer);
        let version = object.resource_version().unwrap_or_default();
        (!ours.is_empty()).then(|| Self { uid: object.uid().unwrap_or_default(), version, rest })
    }
}

/// The actions, and when to look again even if nothing changes.
#[must_use]
pub fn actions(
    workspace: &Workspace,
    now_status: &WorkspaceStatus,
    view: &View<'_>,
) -> (Vec<Action>, Option<DateTime<Utc>>) {
    if now_status.phase == Phase::Stopped {
        return after_stop(workspace, now_status, view);
    }
    let mut actions = Vec::new();
    let stopping = status::is_stopping(now_status, workspace);
    let retry = retry::decide(now_status, view.policy);
    for pod in view.pods {
        let is_current = view::attempt_of(pod) == Some(now_status.attempt);
        if stopping || retry.is_some() || !is_current {
            let abort = now_status.is(berth_workspace_crd::ConditionType::Aborted);
            dispose(pod, now_status, view, abort, &mut actions);
        }
    }
    if stopping || !view.pods.is_empty() {
        return (actions, None);
    }
    let due = match retry {
        None => now_status.attempt == 0,
        Some(Retry::At(at)) => at <= view.now,
        Some(Retry::GiveUp) => false,
    };
    if due && view.class.is_some() {
        let attempt = now_status.attempt + 1;
        match bind(view.nodes, view.disk) {
            Binding::Node(node) => actions.push(Action::CreatePod { attempt, node: Some(node) }),
            Binding::Scheduler => actions.push(Action::CreatePod { attempt, node: None }),
            Binding::Wait(_) => {}
        }
    }
    (actions, None)
}

fn after_stop(
    workspace: &Workspace,
    now_status: &WorkspaceStatus,
    view: &View<'_>,
) -> (Vec<Action>, Option<DateTime<Utc>>) {
    let mut actions = Vec::new();
    for pod in view.pods {
        dispose(pod, now_status, view, false, &mut actions);
    }
    if view::is_deleted(workspace) {
        if view.pods.is_empty()
            && let Some(hold) = Hold::of(workspace, FINALIZER)
        {
            actions.push(Action::ReleaseWorkspace { hold });
        }
        return (actions, None);
    }
    let stopped = now_status.stopped_at.as_deref().and_then(time::parse).unwrap_or(view.now);
    let end = stopped + time::seconds(view.policy.keep_stopped_seconds);
    if view.now >= end {
        actions.push(Action::DeleteWorkspace);
        return (actions, None);
    }
    (actions, Some(end))
}

/// Deletes a pod, and releases it where no node agent is there to do so.
fn dispose(pod: &Pod, now_status: &WorkspaceStatus, view: &View<'_>, abort: bool, actions: &mut Vec<Action>) {
    let name = pod.name_any();
    let held = match view::node_of(pod) {
        Some(node) => view.nodes.exists(node),
        None => now_status.node.is_some() && view::attempt_of(pod) == Some(now_status.attempt),
    };
    if pod.metadata.deletion_timestamp.is_none() {
        // Without a node agent there is nobody to wait for.
        let grace_seconds = if !held { Some(0) } else { abort.then_some(1) };
        actions.push(Action::DeletePod { name, uid: pod.uid().unwrap_or_default(), grace_seconds });
    } else if !held && let Some(hold) = Hold::of(pod, FINALIZER) {
        actions.push(Action::ReleasePod { name, hold });
    }
}
