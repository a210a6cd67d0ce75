//! Conditions: how controller and node agent talk to each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a condition is about. The comment says who sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Controller: a pod exists for this attempt.
    Deployed,
    /// Controller: the instance failed; the message is for the user. Set once, never replaced.
    Failed,
    /// Controller: a timeout fired; the message says which, and after how long.
    Timeout,
    /// Internal API: the user acted for the first time.
    FirstUserActivity,
    /// Internal API: a stop was asked for; the message is the reason.
    StoppedByRequest,
    /// Internal API: stop at once, content need not be kept.
    Aborted,
    /// Node agent: content is there (True), or could not be made (False, with the message for the user).
    ContentReady,
    /// Controller: was Running at least once. Sticky.
    EverReady,
    /// Controller: it was ready, and then ended by itself or was taken away (main process exited, pod evicted); the message says how. Set once.
    Ended,
    /// Node agent: the container runs (True), or is gone (False).
    ContainerRunning,
    /// Node agent: the disk is detached and clean; the stop is complete.
    DiskSafe,
    /// Node agent: the disk could not be brought to rest; the message says why.
    DiskFailed,
    /// Controller: the node object is gone.
    NodeDisappeared,
    /// Node agent: the node refused the pod for now (memory, disk, pressure); the message says what it waits for.
    Waiting,
    /// Node agent or kubelet: the pod was rejected before it was ever ready; the controller makes a new attempt.
    PodRejected,
    /// Node agent: nothing of a rejected attempt is left on the node.
    StateWiped,
    /// Controller: warns that the inactivity timeout is near; the message says when.
    TimeoutWarning,
}

/// True or False; a condition that is unknown is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
}

/// One observation, tied to the attempt it belongs to: a late word of an old pod cannot touch a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// True or False.
    pub status: ConditionStatus,
    /// A word in CamelCase for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For the user: what happened, to what, what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// RFC 3339 with milliseconds; changes only when `status` does.
    pub last_transition_time: String,
    /// The attempt it was observed in; 0 for conditions of the whole instance.
    #[serde(default)]
    pub attempt: u32,
}

/// The merge patch (RFC 7396) that sets one condition in `status.conditions`, which is a map by type: writers of different conditions never
/// overwrite each other.
#[must_use]
pub fn conditions_patch(kind: ConditionType, condition: &Condition) -> serde_json::Value {
    serde_json::json!({ "status": { "conditions": { (format!("{kind:?}")): condition } } })
}
