//! A little world around one instance, which tests drive by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_workspace_crd::{
    Checkout, Condition, ConditionStatus, ConditionType, Disk, FINALIZER, GitIdentity, InstanceType, Phase, Repository,
    Timeouts, Workspace, WorkspaceClass, WorkspaceSpec, WorkspaceStatus,
};
use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Node, NodeCondition, NodeStatus, Pod, PodCondition,
    PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::config::{Config, Policy};
use crate::domain::actions::{Action, actions};
use crate::domain::status::{Computed, patch, status};
use crate::domain::view::{Nodes, View};
use crate::domain::{pod, time};

pub(super) const ID: &str = "019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77";

pub(crate) fn workspace() -> Workspace {
    let spec = WorkspaceSpec {
        workspace_id: "019ab0e2-7c1e-7d30-8f6b-000000000001".into(),
        workspace_name: "hello".into(),
        owner_id: "019ab0e2-7c1e-7d30-8f6b-000000000002".into(),
        organization_id: "019ab0e2-7c1e-7d30-8f6b-000000000003".into(),
        kind: InstanceType::Regular,
        class: "small".into(),
        image: None,
        checkout: Checkout {
            repository: Repository {
                clone_url: "https://git.example/owner/hello".into(),
                host: "git.example".into(),
                owner: "owner".into(),
                name: "hello".into(),
            },
            reference: Some("refs/heads/main".into()),
            branch: Some("main".into()),
            commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
            path: "/workspace/hello".into(),
        },
        git: GitIdentity { name: "Ada".into(), email: "ada@example.org".into() },
        timeouts: Timeouts::default(),
        env: BTreeMap::from([
            ("EDITOR".to_owned(), "vim".to_owned()),
            ("BERTH_INSTANCE_ID".to_owned(), "x".to_owned()),
        ]),
        allow_private_hosts: Vec::new(),
    };
    let mut workspace = Workspace::new(ID, spec);
    workspace.metadata.namespace = Some("berth".into());
    workspace.metadata.uid = Some("uid-1".into());
    workspace.metadata.resource_version = Some("1".into());
    workspace.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    workspace.metadata.creation_timestamp = Some(stamp(start()));
    workspace
}

pub(super) fn start() -> DateTime<Utc> {
    time::parse("2026-11-23T10:00:00Z").unwrap()
}

pub(super) fn stamp(time: DateTime<Utc>) -> Time {
    Time(jiff::Timestamp::from_millisecond(time.timestamp_millis()).unwrap())
}

pub(super) fn class() -> WorkspaceClass {
    WorkspaceClass::new("small", Config::default().classes[0].spec())
}

pub(super) fn node(name: &str, ready: bool) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    let condition = NodeCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        ..NodeCondition::default()
    };
    node.status = Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() });
    node
}

/// A little world that a test drives by hand: the same loop as the controller's, without a cluster.
pub(super) struct World {
    pub(super) workspace: Workspace,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) nodes: Vec<Node>,
    pub(super) disk: Option<Disk>,
    pub(super) class: Option<WorkspaceClass>,
    pub(super) policy: Policy,
    pub(super) now: DateTime<Utc>,
    /// Phases a user saw, without repeats.
    pub(super) seen: Vec<Phase>,
    /// Status patches written.
    pub(super) writes: usize,
    pub(super) next: Option<DateTime<Utc>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            workspace: workspace(),
            pods: Vec::new(),
            nodes: vec![node("one", true)],
            disk: None,
            class: Some(class()),
            policy: Policy::default(),
            now: start(),
            seen: Vec::new(),
            writes: 0,
            next: None,
        }
    }

    pub(super) fn compute(&self) -> (Computed, Vec<Action>, Option<DateTime<Utc>>) {
        let nodes = Nodes::new(&self.nodes);
        let view = View {
            pods: &self.pods,
            nodes: &nodes,
            disk: self.disk.as_ref(),
            class: self.class.as_ref(),
            policy: &self.policy,
            now: self.now,
        };
        let computed = status(&self.workspace, &view);
        let (actions, next) = actions(&self.workspace, &computed.status, &view);
        (computed, actions, next)
    }

    /// Computes and does until nothing changes.
    pub(super) fn settle(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..20 {
            let (computed, todo, next) = self.compute();
            let old = self.workspace.status.clone().unwrap_or_default();
            let creates = todo.iter().any(|action| matches!(action, Action::CreatePod { .. }));
            let changed = patch(&old, &computed.status).is_some() && !creates;
            if changed {
                self.writes += 1;
                let phase = computed.status.phase;
                if self.seen.last() != Some(&phase) {
                    self.seen.push(phase);
                }
                self.workspace.status = Some(computed.status.clone());
            }
            self.next = [computed.next, next].into_iter().flatten().min();
            let mut acted = false;
            for action in todo {
                if changed && matches!(action, Action::ReleaseWorkspace { .. } | Action::DeleteWorkspace) {
                    continue;
                }
                acted |= self.act(&action);
                done.push(action);
            }
            if !changed && !acted {
                return done;
            }
        }
        panic!("does not settle: {:?}", self.workspace.status);
    }

    pub(super) fn act(&mut self, action: &Action) -> bool {
        match action {
            Action::CreatePod { attempt, node } => {
                let mut pod = pod::desired(
                    &self.workspace,
                    self.class.as_ref().unwrap(),
                    *attempt,
                    node.as_deref(),
                    "base",
                    self.policy.termination_grace_seconds,
                );
                pod.metadata.uid = Some(format!("pod-{attempt}"));
                assert!(self.pods.iter().all(|old| old.metadata.name != pod.metadata.name), "made twice");
                self.pods.push(Arc::new(pod));
            }
            Action::DeletePod { name, .. } => {
                let now = stamp(self.now);
                self.pod_named(name, |pod| pod.metadata.deletion_timestamp = Some(now));
            }
            Action::ReleasePod { name, .. } => self.pods.retain(|pod| pod.metadata.name.as_ref() != Some(name)),
            Action::ReleaseWorkspace { .. } => self.workspace.metadata.finalizers = None,
            Action::DeleteWorkspace => self.workspace.metadata.deletion_timestamp = Some(stamp(self.now)),
        }
        true
    }

    pub(super) fn pod_named(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let pod = self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        change(Arc::make_mut(pod));
    }

    pub(super) fn pod(&mut self, change: impl FnOnce(&mut Pod)) {
        change(Arc::make_mut(self.pods.last_mut().unwrap()));
    }

    pub(super) fn pod_status(&mut self, phase: &str, reason: &str, message: &str) {
        self.pod(|pod| {
            let status = pod.status.get_or_insert_default();
            status.phase = Some(phase.into());
            status.reason = (!reason.is_empty()).then(|| reason.to_owned());
            status.message = (!message.is_empty()).then(|| message.to_owned());
        });
    }

    pub(super) fn exit(&mut self, code: i32, reason: &str) {
        let state = ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: code,
                reason: Some(reason.into()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        };
        let container = ContainerStatus { name: "workspace".into(), state: Some(state), ..ContainerStatus::default() };
        self.pod_status(if code == 0 { "Succeeded" } else { "Failed" }, "", "");
        self.pod(|pod| pod.status.get_or_insert_default().container_statuses = Some(vec![container]));
    }

    pub(super) fn condition(&mut self, kind: ConditionType, is: ConditionStatus, attempt: u32, message: &str) {
        let condition = Condition {
            status: is,
            reason: String::new(),
            message: message.into(),
            last_transition_time: time::text(self.now),
            attempt,
        };
        self.workspace.status.get_or_insert_default().conditions.insert(format!("{kind:?}"), condition);
    }

    pub(super) fn yes(&mut self, kind: ConditionType, attempt: u32) {
        self.condition(kind, ConditionStatus::True, attempt, "");
    }

    pub(super) fn is(&self, kind: ConditionType) -> bool {
        self.status().is(kind)
    }

    pub(super) fn status(&self) -> WorkspaceStatus {
        self.workspace.status.clone().unwrap_or_default()
    }

    pub(super) fn ready(&mut self) {
        let attempt = self.status().attempt;
        self.yes(ConditionType::ContentReady, attempt);
        self.yes(ConditionType::ContainerRunning, attempt);
        self.pod(|pod| {
            let condition = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
            pod.status = Some(PodStatus {
                phase: Some("Running".into()),
                conditions: Some(vec![condition]),
                ..PodStatus::default()
            });
        });
    }

    pub(super) fn running() -> Self {
        let mut world = Self::new();
        world.settle();
        world.workspace.status.get_or_insert_default().node = Some("one".into());
        world.ready();
        world.settle();
        assert_eq!(world.status().phase, Phase::Running);
        world
    }

    /// The node agent brings the pod of this attempt to its end.
    pub(super) fn node_stops(&mut self) {
        let attempt = self.status().attempt;
        self.condition(ConditionType::ContainerRunning, ConditionStatus::False, attempt, "");
        self.yes(ConditionType::DiskSafe, attempt);
        self.settle();
        self.pods.clear();
        self.settle();
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }
}
