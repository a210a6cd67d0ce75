//! When an instance stops by itself, and what the user is told before and afterwards.

use berth_workspace_crd::{ConditionType, Phase, Workspace, WorkspaceStatus};
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Policy;
use crate::domain::{time, view};

/// What the clock says about an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// One has fired.
    pub fired: Option<Fired>,
    /// One is near: the text for the user.
    pub warning: Option<String>,
    /// Look again then.
    pub next: Option<DateTime<Utc>>,
}

/// A timeout that has fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// The instance is stopped in good order; the text is the reason.
    Stop(String),
    /// The start took too long: the instance failed.
    StartFailed(String),
    /// The stop took too long.
    StopFailed(String),
}

/// Evaluates the timeouts. `status` is the status computed so far in this decision; `stopping_since` is set while the instance stops.
#[must_use]
pub fn evaluate(
    workspace: &Workspace,
    status: &WorkspaceStatus,
    stopping_since: Option<DateTime<Utc>>,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Timeouts {
    if status.phase == Phase::Stopped {
        return Timeouts::default();
    }
    if let Some(since) = stopping_since {
        return stopping(since, status, policy, now);
    }
    if status.is(ConditionType::EverReady) {
        running(workspace, status, policy, now)
    } else {
        starting(workspace, status, policy, now)
    }
}

fn stopping(since: DateTime<Utc>, status: &WorkspaceStatus, policy: &Policy, now: DateTime<Utc>) -> Timeouts {
    let limit = time::seconds(policy.stopping_seconds);
    if now < since + limit {
        return Timeouts { next: Some(since + limit), ..Timeouts::default() };
    }
    let node = status.node.as_deref().unwrap_or("the node");
    let text = format!(
        "{node} did not confirm within {} that the workspace has stopped; its disk stays there as it is",
        time::words(limit)
    );
    Timeouts { fired: Some(Fired::StopFailed(text)), ..Timeouts::default() }
}

fn starting(workspace: &Workspace, status: &WorkspaceStatus, policy: &Policy, now: DateTime<Utc>) -> Timeouts {
    let Some(created) = workspace.metadata.creation_timestamp.as_ref().map(time::of) else {
        return Timeouts::default();
    };
    let limit = time::seconds(policy.startup_seconds);
    if now < created + limit {
        return Timeouts { next: Some(created + limit), ..Timeouts::default() };
    }
    let step = status.steps.iter().rev().find(|step| step.duration_micros.is_none());
    let waiting = view::current(status, ConditionType::Waiting).filter(|_| view::holds(status, ConditionType::Waiting));
    let at = match (step, waiting) {
        (Some(step), _) if step.detail.is_empty() => format!(": it was still in step {}", step.name),
        (Some(step), _) => format!(": it was still in step {} ({})", step.name, step.detail),
        (None, Some(waiting)) => format!(": {}", waiting.message),
        (None, None) if !status.reason.is_empty() => format!(": {}", status.reason),
        (None, None) => String::new(),
    };
    let text = format!("the workspace did not start within {}{at}", time::words(limit));
    Timeouts { fired: Some(Fired::StartFailed(text)), ..Timeouts::default() }
}

fn running(workspace: &Workspace, status: &WorkspaceStatus, policy: &Policy, now: DateTime<Utc>) -> Timeouts {
    let Some(started) = status.started_at.as_deref().and_then(time::parse) else { return Timeouts::default() };
    let own = &workspace.spec.timeouts;
    let inactivity = own.inactivity_seconds.unwrap_or(policy.inactivity_seconds);
    let lifetime = own.max_lifetime_seconds.unwrap_or(policy.max_lifetime_seconds);
    let active = status.last_activity.as_deref().and_then(time::parse).unwrap_or(started).max(started);

    let timers = [
        Timer {
            deadline: active + time::seconds(inactivity),
            limit: time::seconds(inactivity),
            fired: |limit| format!("stopped after {limit} without activity"),
            warning: |at| format!("the workspace stops at {at} unless it is used"),
        },
        Timer {
            deadline: started + time::seconds(lifetime),
            limit: time::seconds(lifetime),
            fired: |limit| format!("stopped after running for {limit}, the longest time allowed"),
            warning: |at| format!("the workspace stops at {at}: it has then run for the longest time allowed"),
        },
    ];
    let Some(timer) = timers.into_iter().filter(|timer| !timer.limit.is_zero()).min_by_key(|timer| timer.deadline)
    else {
        return Timeouts::default();
    };
    if now >= timer.deadline {
        return Timeouts { fired: Some(Fired::Stop((timer.fired)(&time::words(timer.limit)))), ..Timeouts::default() };
    }
    // The text names the time, not how long is left: a text that changed every second would be written every second.
    let lead = time::seconds(policy.warning_seconds).min(timer.limit / 2);
    if now >= timer.deadline - lead {
        let warning = (timer.warning)(&timer.deadline.format("%H:%M:%S UTC").to_string());
        return Timeouts { warning: Some(warning), next: Some(timer.deadline), fired: None };
    }
    Timeouts { next: Some(timer.deadline - lead), ..Timeouts::default() }
}

struct Timer {
    deadline: DateTime<Utc>,
    limit: TimeDelta,
    fired: fn(&str) -> String,
    warning: fn(&str) -> String,
}
