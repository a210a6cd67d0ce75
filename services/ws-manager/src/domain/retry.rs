//! Attempts that failed through nobody's fault, before the workspace was ever ready, are repeated without the user noticing.

use berth_workspace_crd::{ConditionType, WorkspaceStatus};
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Policy;
use crate::domain::{time, view};

/// What comes after a rejected attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Another attempt, not before this time.
    At(DateTime<Utc>),
    /// There were enough.
    GiveUp,
}

/// Decides about the current attempt, which was rejected; `None` if it was not, or if the workspace was ready before: then it may hold work
/// of the user's that another attempt would not have.
#[must_use]
pub fn decide(status: &WorkspaceStatus, policy: &Policy) -> Option<Retry> {
    if !view::holds(status, ConditionType::PodRejected) || status.is(ConditionType::EverReady) {
        return None;
    }
    let rejected = view::current(status, ConditionType::PodRejected)?;
    if status.attempt >= policy.max_attempts {
        return Some(Retry::GiveUp);
    }
    let since = time::parse(&rejected.last_transition_time).unwrap_or_default();
    Some(Retry::At(since + back_off(status.attempt, policy)))
}

/// Doubles with each attempt, up to the bound.
#[must_use]
pub fn back_off(attempt: u32, policy: &Policy) -> TimeDelta {
    let doublings = attempt.saturating_sub(1).min(20);
    let millis = policy.retry_back_off_ms.saturating_mul(1 << doublings).min(policy.retry_back_off_max_ms);
    TimeDelta::milliseconds(i64::from(millis))
}
