//! From an instance's event to its usage record.

use berth_api_types::internal::InstanceLifecycle;
use berth_api_types::public::Phase;
use chrono::{DateTime, Utc};

use super::credits::to_millis;

/// What an event says about the billable interval of its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) stopped_at: Option<DateTime<Utc>>,
}

/// The interval of an event; `None` if the instance was never usable: nobody pays for a start that failed. `written_at` ends an interval
/// whose instance is over without saying when.
pub(crate) fn interval(event: &InstanceLifecycle, written_at: DateTime<Utc>) -> Option<Interval> {
    let started_at = to_millis(event.started_at?);
    let ended = event.stopped_at.or_else(|| (event.phase == Phase::Stopped).then_some(written_at));
    // Clocks of two machines may differ by more than a very short run lasts: an interval is never negative.
    let stopped_at = ended.map(|ended| to_millis(ended).max(started_at));
    Some(Interval { started_at, stopped_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn event(phase: Phase, started_at: Option<&str>, stopped_at: Option<&str>) -> InstanceLifecycle {
        let id = "019ab0e2-7c1e-7d30-8f6b-000000000001";
        InstanceLifecycle {
            instance_id: id.parse().unwrap(),
            workspace_id: id.parse().unwrap(),
            workspace_name: "w".to_owned(),
            owner_id: id.parse().unwrap(),
            organization_id: id.parse().unwrap(),
            repository: "github.com/o/n".to_owned(),
            class: "small".to_owned(),
            phase,
            first_start: false,
            started_at: started_at.map(at),
            stopped_at: stopped_at.map(at),
            version: 1,
        }
    }

    #[test]
    fn an_interval_runs_from_running_to_the_containers_end() {
        let now = at("12:00:00");
        assert_eq!(interval(&event(Phase::Creating, None, None), now), None);
        assert_eq!(interval(&event(Phase::Stopped, None, Some("11:00:00")), now), None, "it never ran");
        let running = interval(&event(Phase::Running, Some("10:00:00.123456"), None), now).unwrap();
        assert_eq!(running, Interval { started_at: at("10:00:00.123"), stopped_at: None });
        let stopping = interval(&event(Phase::Stopping, Some("10:00:00"), None), now).unwrap();
        assert_eq!(stopping.stopped_at, None);
        let stopped = interval(&event(Phase::Stopped, Some("10:00:00"), Some("11:00:00")), now).unwrap();
        assert_eq!(stopped.stopped_at, Some(at("11:00:00")));
        let silent = interval(&event(Phase::Stopped, Some("10:00:00"), None), now).unwrap();
        assert_eq!(silent.stopped_at, Some(now));
        let skewed = interval(&event(Phase::Stopped, Some("10:00:00"), Some("09:59:59")), now).unwrap();
        assert_eq!(skewed.stopped_at, Some(at("10:00:00")));
    }
}
