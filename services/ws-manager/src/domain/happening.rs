//! What `kubectl describe workspace` and `kubectl get events` tell of an instance: what a change of its status means to a reader. A start takes
//! one event, written after it; nothing is told of steps that the status shows anyway.

use berth_workspace_crd::{ConditionType, Phase, WorkspaceStatus};

/// The API server takes no longer note (`k8s.io/kubernetes/pkg/apis/core/validation/events.go`).
const NOTE_BYTES: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Somebody should look.
    pub is_warning: bool,
    /// One word, for programs.
    pub reason: String,
    /// A sentence, for people.
    pub note: String,
    /// What the controller did about it.
    pub action: &'static str,
}

/// What happened between two statuses of an instance.
#[must_use]
pub fn happenings(old: &WorkspaceStatus, new: &WorkspaceStatus) -> Vec<Happening> {
    use ConditionType::{Failed, PodRejected, TimeoutWarning};
    let mut all = Vec::new();
    let mut tell = |is_warning, reason: &str, note: &str, action| {
        let note = note[..note.floor_char_boundary(NOTE_BYTES)].to_owned();
        all.push(Happening { is_warning, reason: reason.to_owned(), note, action });
    };
    let message = |kind| new.condition(kind).map(|condition| condition.message.as_str()).unwrap_or_default();
    if old.attempt > 0 && new.attempt > old.attempt {
        let note = format!("attempt {}, because of the one before: {}", new.attempt, message(PodRejected));
        tell(true, "Retried", &note, "CreatePod");
    }
    if old.started_at.is_none() && new.started_at.is_some() {
        let note = new.node.as_ref().map_or_else(|| "ready".to_owned(), |node| format!("ready on node {node}"));
        tell(false, "Started", &note, "Start");
    }
    if new.is(TimeoutWarning) && !old.is(TimeoutWarning) {
        tell(true, "TimeoutNear", message(TimeoutWarning), "Warn");
    }
    if new.is(Failed) && !old.is(Failed) {
        let word = new.condition(Failed).map(|condition| condition.reason.as_str()).unwrap_or_default();
        tell(true, word, message(Failed), "Stop");
    } else if new.phase == Phase::Stopping && old.phase != Phase::Stopping {
        tell(false, "Stopping", &new.reason, "Stop");
    }
    if new.phase == Phase::Stopped && old.phase != Phase::Stopped {
        let note = if new.is(Failed) { "nothing of it runs any more" } else { &new.reason };
        tell(false, "Stopped", note, "Stop");
    }
    all
}
