//! The status of an instance: a pure function of the resource, its pods, the nodes and the disk.
//!
//! Only the controller's own fields change here: `phase`, `reason`, `attempt`, `startedAt`, `stoppedAt`, and its conditions. Evidence that
//! will soon be gone (why a pod ended) is recorded as a condition before anything is done about it; conditions that say how an instance ended
//! are set once.

use berth_workspace_crd::{Condition, ConditionStatus, ConditionType, Phase, Workspace, WorkspaceStatus};
use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::domain::failure::{self, Facts, Verdict};
use crate::domain::retry::{self, Retry};
use crate::domain::timeouts::{self, Fired};
use crate::domain::view::{self, View};
use crate::domain::{binding, time};

/// The conditions that the controller owns; the first in this order that holds gives the reason.
const OWN: [ConditionType; 8] = [
    ConditionType::Failed,
    ConditionType::Timeout,
    ConditionType::Ended,
    ConditionType::Deployed,
    ConditionType::EverReady,
    ConditionType::NodeDisappeared,
    ConditionType::PodRejected,
    ConditionType::TimeoutWarning,
];

/// The api service, which accepted the start, knew the class; this replica's watch of classes may be a moment behind.
const CLASS_GRACE: TimeDelta = TimeDelta::seconds(10);

/// A computed status, and when it may change merely because time passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// The complete status; fields of other writers are unchanged.
    pub status: WorkspaceStatus,
    /// Look again then.
    pub next: Option<DateTime<Utc>>,
}

/// Computes the status.
#[must_use]
pub fn status(workspace: &Workspace, view: &View<'_>) -> Computed {
    let old = workspace.status.clone().unwrap_or_default();
    if old.phase == Phase::Stopped {
        return Computed { status: old, next: None };
    }
    let mut new = old.clone();
    let newest = view.newest_attempt();
    if newest > old.attempt {
        new.attempt = newest;
        // What other writers said about an earlier attempt is not about this one: it is ignored because of its number, and stays for those
        // who look.
        set(&mut new, ConditionType::Deployed, newest, "PodCreated", String::new(), view.now);
    }
    let pod = view.pod(new.attempt);

    record_end(&mut new, workspace, pod, view);
    advance(&mut new, &old, workspace, pod);
    let timeouts = timeouts::evaluate(workspace, &new, stopping_since(&new, workspace), view.policy, view.now);
    match timeouts.fired {
        Some(Fired::Stop(text)) => {
            set(&mut new, ConditionType::Timeout, 0, "Timeout", text, view.now);
            advance(&mut new, &old, workspace, pod);
        }
        Some(Fired::StartFailed(text)) => {
            fail(&mut new, "StartTimeout", text, view.now);
            advance(&mut new, &old, workspace, pod);
        }
        Some(Fired::StopFailed(text)) => {
            fail(&mut new, "StopTimeout", text, view.now);
            new.phase = Phase::Stopped;
        }
        None => {}
    }
    match timeouts.warning {
        Some(text) => set(&mut new, ConditionType::TimeoutWarning, 0, "Near", text, view.now),
        None => {
            new.conditions.remove(&key(ConditionType::TimeoutWarning));
        }
    }
    if new.phase == Phase::Running && old.started_at.is_none() {
        new.started_at = Some(time::text(view.now));
        set(&mut new, ConditionType::EverReady, 0, "Ready", String::new(), view.now);
    }
    if new.phase == Phase::Stopped {
        new.stopped_at = Some(time::text(ended_at(&new, view.now)));
    }
    new.reason = reason(&new, workspace, pod, view);
    // The timer that was just started, or the next attempt.
    let class_due = workspace.metadata.creation_timestamp.as_ref().map(|created| time::of(created) + CLASS_GRACE);
    let next = match retry::decide(&new, view.policy) {
        Some(Retry::At(at)) if !is_stopping(&new, workspace) => Some(timeouts.next.map_or(at, |next| next.min(at))),
        _ if new.started_at != old.started_at => {
            timeouts::evaluate(workspace, &new, stopping_since(&new, workspace), view.policy, view.now).next
        }
        _ if view.class.is_none() && new.attempt == 0 && new.phase != Phase::Stopped => class_due,
        _ => timeouts.next,
    };
    Computed { status: new, next }
}

/// Records how the attempt, or the instance, ended, if it did.
fn record_end(new: &mut WorkspaceStatus, workspace: &Workspace, pod: Option<&Pod>, view: &View<'_>) {
    if let Some(broken) = view::denied(new, ConditionType::StateWiped) {
        let text = format!("what an earlier attempt left on the node could not be removed: {}", broken.message);
        fail(new, "StateNotWiped", text, view.now);
    }
    if view::holds(new, ConditionType::DiskFailed) && !new.is(ConditionType::Aborted) {
        let message = view::current(new, ConditionType::DiskFailed).map(|c| c.message.clone()).unwrap_or_default();
        fail(new, "DiskFailed", format!("the disk could not be brought to rest: {message}"), view.now);
    }
    let node = pod.and_then(view::node_of).or(new.node.as_deref().filter(|_| new.attempt > 0)).map(str::to_owned);
    if let Some(node) = node.filter(|node| !view.nodes.exists(node))
        && !view::holds(new, ConditionType::DiskSafe)
        && !view::holds(new, ConditionType::NodeDisappeared)
    {
        let text = format!("node {node} is gone from the cluster");
        let attempt = new.attempt;
        set(new, ConditionType::NodeDisappeared, attempt, "NodeGone", text, view.now);
    }
    if is_stopping(new, workspace) || retry::decide(new, view.policy).is_some() {
        // How a process that is being stopped ends says nothing; a rejected pod is only waited for.
        give_up_if_tried_enough(new, view);
        return;
    }
    let created = workspace.metadata.creation_timestamp.as_ref().map(time::of);
    if view.class.is_none() && new.attempt == 0 && created.is_none_or(|created| created + CLASS_GRACE <= view.now) {
        let text = format!("class {:?} does not exist: choose another one", workspace.spec.class);
        fail(new, "UnknownClass", text, view.now);
        return;
    }
    let Some((word, verdict)) = verdict(new, pod) else { return };
    let ever_ready = new.is(ConditionType::EverReady);
    let attempt = new.attempt;
    match verdict {
        Verdict::Rejected(text) if ever_ready => set_once(new, ConditionType::Ended, word, text, view.now),
        Verdict::Rejected(text) => {
            set(new, ConditionType::PodRejected, attempt, word, text, view.now);
            give_up_if_tried_enough(new, view);
        }
        Verdict::Ended(text) if ever_ready => set_once(new, ConditionType::Ended, word, text, view.now),
        Verdict::Ended(_) => {
            fail(new, word, "the workspace's main process exited before the workspace was ready".to_owned(), view.now);
        }
        Verdict::Failed(text) => fail(new, word, text, view.now),
    }
}

/// What the conditions of the attempt and its pod say about its end, the strongest evidence first.
fn verdict(status: &WorkspaceStatus, pod: Option<&Pod>) -> Option<(&'static str, Verdict)> {
    if status.attempt == 0 {
        return None;
    }
    if let Some(content) = view::denied(status, ConditionType::ContentReady) {
        return Some(("ContentFailed", Verdict::Failed(content.message.clone())));
    }
    if let Some(gone) = view::current(status, ConditionType::NodeDisappeared) {
        return Some(("NodeDisappeared", Verdict::Rejected(gone.message.clone())));
    }
    if let Some(rejected) =
        view::current(status, ConditionType::PodRejected).filter(|_| view::holds(status, ConditionType::PodRejected))
    {
        return Some(("PodRejected", Verdict::Rejected(rejected.message.clone())));
    }
    let Some(pod) = pod else {
        return Some(("PodGone", Verdict::Rejected("the workspace's pod was removed".to_owned())));
    };
    if let Some(verdict) = failure::classify(&Facts::of(pod)) {
        return Some(("PodEnded", verdict));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(("PodDeleted", Verdict::Rejected("the workspace's pod was deleted from outside".to_owned())));
    }
    if let Some(gone) = view::denied(status, ConditionType::ContainerRunning) {
        // The pod's own status is more precise, and comes first; this is the node's report where there is none.
        let verdict = match gone.reason.as_str() {
            "NodeRestarted" | "NotStarted" | "Lost" => Verdict::Rejected(gone.message.clone()),
            _ if gone.message.is_empty() => Verdict::Failed("the workspace's container is gone".to_owned()),
            _ => Verdict::Failed(gone.message.clone()),
        };
        return Some(("ContainerGone", verdict));
    }
    None
}

fn give_up_if_tried_enough(new: &mut WorkspaceStatus, view: &View<'_>) {
    if retry::decide(new, view.policy) == Some(Retry::GiveUp) {
        let last = view::current(new, ConditionType::PodRejected).map(|c| c.message.clone()).unwrap_or_default();
        let text = format!("the workspace could not be started in {} attempts; the last one: {last}", new.attempt);
        fail(new, "TooManyAttempts", text, view.now);
    }
}

/// Sets the phase.
fn advance(new: &mut WorkspaceStatus, old: &WorkspaceStatus, workspace: &Workspace, pod: Option<&Pod>) {
    let computed = if is_stopping(new, workspace) {
        if is_disposed(new, pod) { Phase::Stopped } else { Phase::Stopping }
    } else if view::holds(new, ConditionType::PodRejected) && !new.is(ConditionType::EverReady) {
        // Without the user noticing: the next attempt continues from here.
        old.phase
    } else if let Some(pod) = pod {
        of_pod(new, pod)
    } else {
        Phase::Pending
    };
    new.phase = if new.attempt == old.attempt { computed.max(old.phase) } else { computed };
}

fn of_pod(status: &WorkspaceStatus, pod: &Pod) -> Phase {
    let ready = is_ready(pod);
    let started = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    if status.is(ConditionType::EverReady) || ready && view::holds(status, ConditionType::ContentReady) {
        Phase::Running
    } else if view::holds(status, ConditionType::ContentReady) {
        // Only the pod's own report is missing, which follows at once: not worth a write.
        Phase::Creating
    } else if started || ready || view::holds(status, ConditionType::ContainerRunning) {
        Phase::Initializing
    } else if view::node_of(pod).is_some() {
        Phase::Creating
    } else {
        Phase::Pending
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Whether the instance is on its way to Stopped, for whatever reason.
#[must_use]
pub fn is_stopping(status: &WorkspaceStatus, workspace: &Workspace) -> bool {
    use ConditionType::{Aborted, Ended, Failed, StoppedByRequest, Timeout};
    view::is_deleted(workspace)
        || [Failed, StoppedByRequest, Aborted, Timeout, Ended].into_iter().any(|kind| status.is(kind))
}

fn stopping_since(status: &WorkspaceStatus, workspace: &Workspace) -> Option<DateTime<Utc>> {
    use ConditionType::{Aborted, Ended, Failed, StoppedByRequest, Timeout};
    let deleted = workspace.metadata.deletion_timestamp.as_ref().map(time::of);
    [Failed, StoppedByRequest, Aborted, Timeout, Ended]
        .into_iter()
        .filter(|kind| status.is(*kind))
        .filter_map(|kind| time::parse(&status.condition(kind)?.last_transition_time))
        .chain(deleted)
        .min()
}

/// Whether nothing runs any more and the disk is at rest, as far as can be known.
fn is_disposed(status: &WorkspaceStatus, pod: Option<&Pod>) -> bool {
    use ConditionType::{DiskFailed, DiskSafe, NodeDisappeared};
    match pod {
        // The node agent's finalizer keeps a pod until its container is gone and its disk is safe.
        None => true,
        // No node ever had it, and no scheduler binds a pod that is being deleted.
        Some(pod) if view::node_of(pod).is_none() => pod.metadata.deletion_timestamp.is_some(),
        Some(_) => [DiskSafe, DiskFailed, NodeDisappeared].into_iter().any(|kind| view::holds(status, kind)),
    }
}

/// The billable interval ends when the container did, not when somebody noticed.
fn ended_at(status: &WorkspaceStatus, now: DateTime<Utc>) -> DateTime<Utc> {
    let gone = view::denied(status, ConditionType::ContainerRunning)
        .and_then(|condition| time::parse(&condition.last_transition_time))
        .map_or(now, |gone| gone.min(now));
    let started = status.started_at.as_deref().and_then(time::parse);
    started.map_or(gone, |started| gone.max(started))
}

/// What the user reads beside the phase; empty while all is well.
fn reason(status: &WorkspaceStatus, workspace: &Workspace, pod: Option<&Pod>, view: &View<'_>) -> String {
    use ConditionType::{Aborted, Ended, Failed, StoppedByRequest, Timeout, Waiting};
    for kind in [Failed, Timeout, Ended, StoppedByRequest, Aborted] {
        if let Some(condition) = status.condition(kind).filter(|_| status.is(kind)) {
            return condition.message.clone();
        }
    }
    if view::is_deleted(workspace) {
        return "stopped because its object was deleted".to_owned();
    }
    if status.is(ConditionType::EverReady) {
        return String::new();
    }
    if let Some(waiting) = view::current(status, Waiting).filter(|_| view::holds(status, Waiting)) {
        return waiting.message.clone();
    }
    match pod {
        None => match binding::bind(view.nodes, view.disk) {
            binding::Binding::Wait(text) => text,
            _ => String::new(),
        },
        Some(pod) => unscheduled(pod).unwrap_or_default(),
    }
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    condition.message.as_ref().map(|message| format!("waiting for a node: {message}"))
}

fn key(kind: ConditionType) -> String {
    format!("{kind:?}")
}

/// Sets a condition to True; its transition time stays if it was True already, and nothing changes if nothing is new.
fn set(
    status: &mut WorkspaceStatus,
    kind: ConditionType,
    attempt: u32,
    reason: &str,
    message: String,
    now: DateTime<Utc>,
) {
    let last_transition_time = match status.condition(kind) {
        Some(old) if old.status == ConditionStatus::True && old.attempt == attempt => old.last_transition_time.clone(),
        _ => time::text(now),
    };
    let condition =
        Condition { status: ConditionStatus::True, reason: reason.to_owned(), message, last_transition_time, attempt };
    status.conditions.insert(key(kind), condition);
}

fn set_once(status: &mut WorkspaceStatus, kind: ConditionType, reason: &str, message: String, now: DateTime<Utc>) {
    if !status.is(kind) {
        set(status, kind, 0, reason, message, now);
    }
}

pub(crate) fn fail(status: &mut WorkspaceStatus, reason: &str, message: String, now: DateTime<Utc>) {
    set_once(status, ConditionType::Failed, reason, message, now);
}

/// The merge patch (RFC 7396) for `/status` that turns the controller's own fields of `old` into those of `new`; `None` if they are equal.
#[must_use]
pub fn patch(old: &WorkspaceStatus, new: &WorkspaceStatus) -> Option<Value> {
    let mut fields = Map::new();
    if old.phase != new.phase {
        fields.insert("phase".to_owned(), json!(new.phase));
    }
    if old.reason != new.reason {
        fields.insert("reason".to_owned(), json!(new.reason));
    }
    if old.attempt != new.attempt {
        fields.insert("attempt".to_owned(), json!(new.attempt));
    }
    if old.started_at != new.started_at {
        fields.insert("startedAt".to_owned(), json!(new.started_at));
    }
    if old.stopped_at != new.stopped_at {
        fields.insert("stoppedAt".to_owned(), json!(new.stopped_at));
    }
    let conditions: Map<_, _> = OWN
        .into_iter()
        .filter(|kind| old.condition(*kind) != new.condition(*kind))
        .map(|kind| (key(kind), json!(new.condition(kind))))
        .collect();
    if !conditions.is_empty() {
        fields.insert("conditions".to_owned(), Value::Object(conditions));
    }
    (!fields.is_empty()).then(|| json!({ "status": fields }))
}

/// Whether the patch records evidence that must be safe before anything is done about it.
#[must_use]
pub fn is_evidence(old: &WorkspaceStatus, new: &WorkspaceStatus) -> bool {
    use ConditionType::{Ended, Failed, NodeDisappeared, PodRejected, Timeout};
    [Failed, Ended, NodeDisappeared, PodRejected, Timeout]
        .into_iter()
        .any(|kind| old.condition(kind) != new.condition(kind))
}
