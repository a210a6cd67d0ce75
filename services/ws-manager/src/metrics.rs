//! What happened to instances, counted by the replica that wrote it: nothing is counted twice after a restart, nor by a second replica.

use berth_workspace_crd::{ConditionType, Phase, Workspace, WorkspaceStatus};
use chrono::{DateTime, Utc};
use kube::ResourceExt as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Class {
    class: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stop {
    class: String,
    reason: &'static str,
}

/// Counters and times.
#[derive(Clone, Debug)]
pub(crate) struct InstanceMetrics {
    starts: Family<Class, Counter>,
    retries: Family<Class, Counter>,
    stops: Family<Stop, Counter>,
    startup: Histogram,
}

impl Default for InstanceMetrics {
    fn default() -> Self {
        let buckets = [0.025, 0.05, 0.1, 0.15, 0.25, 0.4, 0.7, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0, 1800.0];
        Self {
            starts: Family::default(),
            retries: Family::default(),
            stops: Family::default(),
            startup: Histogram::new(buckets),
        }
    }
}

impl InstanceMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("instance_starts", "Instances whose first pod was made", self.starts.clone());
        registry.register("instance_retries", "Attempts after the first", self.retries.clone());
        registry.register("instance_stops", "Instances that stopped, by reason", self.stops.clone());
        registry.register("instance_startup_seconds", "From the request to Running", self.startup.clone());
    }

    /// Counts a change of status that was written.
    pub(crate) fn written(
        &self,
        workspace: &Workspace,
        old: &WorkspaceStatus,
        new: &WorkspaceStatus,
        now: DateTime<Utc>,
    ) {
        let class = Class { class: workspace.spec.class.clone() };
        if old.attempt == 0 && new.attempt > 0 {
            self.starts.get_or_create(&class).inc();
        } else if new.attempt > old.attempt {
            self.retries.get_or_create(&class).inc();
        }
        if old.started_at.is_none()
            && new.started_at.is_some()
            && let Some(asked) = asked_at(workspace)
        {
            self.startup.observe((now - asked).as_seconds_f64().max(0.0));
        }
        if old.phase != Phase::Stopped && new.phase == Phase::Stopped {
            self.stops.get_or_create(&Stop { class: class.class, reason: reason(new) }).inc();
        }
    }
}

/// The instance's id tells it to the millisecond; an object's creation time has whole seconds.
fn asked_at(workspace: &Workspace) -> Option<DateTime<Utc>> {
    let id: berth_ids::InstanceId = workspace.name_any().parse().ok()?;
    let (seconds, nanos) = id.as_uuid().get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

fn reason(status: &WorkspaceStatus) -> &'static str {
    let ready = status.is(ConditionType::EverReady);
    [
        (ConditionType::Aborted, "aborted"),
        (ConditionType::Failed, if ready { "failed" } else { "start_failed" }),
        (ConditionType::Timeout, "timeout"),
        (ConditionType::NodeDisappeared, "node_disappeared"),
        (ConditionType::Ended, "ended"),
        (ConditionType::StoppedByRequest, "requested"),
    ]
    .into_iter()
    .find(|(kind, _)| status.is(*kind))
    .map_or("deleted", |(_, word)| word)
}
