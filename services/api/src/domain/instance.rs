//! One run of a workspace, and how ws-manager's statuses change it.

use berth_api_types::internal::{InstanceLifecycle, InstanceStatus};
use berth_api_types::public::{Phase, Resources, Step};
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, TimeDelta, Utc};

/// The reason of a run that ws-manager accepted and no longer knows.
pub(crate) const LOST: &str =
    "the instance was lost: the machine it ran on, or its record there, is gone; the disk is kept, start it again";

/// A run, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance {
    /// Which run.
    pub id: InstanceId,
    /// The workspace's id.
    pub workspace_id: WorkspaceId,
    /// No run of this workspace was ever ready before.
    pub first_start: bool,
    /// Where it is.
    pub phase: Phase,
    /// Why, for the user.
    pub reason: String,
    /// It failed.
    pub failed: bool,
    /// Version of the last status that was applied.
    pub version: i64,
    /// Node it is on.
    pub node: Option<String>,
    /// Digest of its image.
    pub image_digest: Option<String>,
    /// What it was given.
    pub resources: Option<Resources>,
    /// Steps measured here.
    pub request_steps: Vec<Step>,
    /// Steps measured by the node.
    pub steps: Vec<Step>,
    /// When the user asked.
    pub requested_at: DateTime<Utc>,
    /// From then to Running.
    pub total_us: Option<i64>,
    /// Begin of the billable interval.
    pub started_at: Option<DateTime<Utc>>,
    /// End of it.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Last activity of the user.
    pub last_activity: Option<DateTime<Utc>>,
    /// The inactivity timeout is near.
    pub timeout_warning: Option<String>,
    /// ws-manager took the start.
    pub accepted_at: Option<DateTime<Utc>>,
    /// Somebody asked to stop it.
    pub stop_requested_at: Option<DateTime<Utc>>,
    /// Becomes the reason once the run has stopped.
    pub stop_reason: String,
}

/// What an instance belongs to; part of its lifecycle events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    /// Its workspace's name.
    pub workspace_name: String,
    /// Its workspace's owner.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// `host/owner/name` of the repository.
    pub repository: String,
    /// Workspace class.
    pub class: String,
    /// The workspace is deleted: nothing of it may be left.
    pub deleted: bool,
}

/// What to do about a status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is older than what is known, or changes nothing.
    Stale,
    /// The run is over here, whatever the status says. With `still_runs` it must be stopped at ws-manager too.
    Terminal {
        /// The status is of something alive.
        still_runs: bool,
    },
    /// Take it over.
    Apply(Box<Instance>),
}

impl Instance {
    /// A new run that ws-manager does not know yet.
    #[must_use]
    pub(crate) const fn pending(
        id: InstanceId,
        workspace_id: WorkspaceId,
        first_start: bool,
        requested_at: DateTime<Utc>,
        request_steps: Vec<Step>,
    ) -> Self {
        Self {
            id,
            workspace_id,
            first_start,
            phase: Phase::Pending,
            reason: String::new(),
            failed: false,
            version: 0,
            node: None,
            image_digest: None,
            resources: None,
            request_steps,
            steps: Vec::new(),
            requested_at,
            total_us: None,
            started_at: None,
            stopped_at: None,
            last_activity: None,
            timeout_warning: None,
            accepted_at: None,
            stop_requested_at: None,
            stop_reason: String::new(),
        }
    }

    /// It is over.
    #[must_use]
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// What a status from ws-manager changes: nothing if it is old, nothing once the run is over.
    #[must_use]
    pub(crate) fn judge(&self, status: &InstanceStatus, now: DateTime<Utc>) -> Verdict {
        if self.is_over() {
            return Verdict::Terminal { still_runs: !matches!(status.phase, Phase::Stopping | Phase::Stopped) };
        }
        let version = i64::try_from(status.version).unwrap_or(i64::MAX);
        if version <= self.version {
            return Verdict::Stale;
        }
        let mut next = self.clone();
        next.version = version;
        next.phase = status.phase;
        next.reason.clone_from(&status.reason);
        next.failed = status.failed;
        next.node = status.node.clone().or(next.node);
        next.resources = status.resources.clone().or(next.resources);
        next.image_digest = status.image_digest.clone().or(next.image_digest);
        if !status.steps.is_empty() {
            next.steps.clone_from(&status.steps);
        }
        // The first report of the billable interval wins: a status that was rebuilt after a restart must not move its beginning.
        next.started_at = self.started_at.or(status.started_at);
        next.stopped_at = self.stopped_at.or(status.stopped_at);
        next.last_activity = status.last_activity.or(next.last_activity);
        next.timeout_warning.clone_from(&status.timeout_warning);
        if next.phase == Phase::Running && next.total_us.is_none() {
            let ready = end_of(&next.steps, "ready").or(next.started_at).unwrap_or(now);
            next.total_us = micros(ready - next.requested_at);
        }
        if next.is_over() {
            next.finish(now);
        }
        Verdict::Apply(Box::new(next))
    }

    /// Ends the run without a status from ws-manager, which never accepted it or no longer knows it.
    #[must_use]
    pub(crate) fn ended(&self, reason: impl Into<String>, failed: bool, now: DateTime<Utc>) -> Self {
        let mut next = self.clone();
        next.phase = Phase::Stopped;
        next.reason = reason.into();
        next.failed = failed;
        next.finish(now);
        next
    }

    fn finish(&mut self, now: DateTime<Utc>) {
        self.timeout_warning = None;
        if self.started_at.is_some() {
            self.stopped_at = self.stopped_at.or(Some(now));
        }
        if self.reason.is_empty() && self.stop_requested_at.is_some() {
            self.reason.clone_from(&self.stop_reason);
        }
    }

    /// The event that other services get about it.
    #[must_use]
    pub(crate) fn lifecycle(&self, of: &Belongings) -> InstanceLifecycle {
        InstanceLifecycle {
            instance_id: self.id,
            workspace_id: self.workspace_id,
            workspace_name: of.workspace_name.clone(),
            owner_id: of.owner_id,
            organization_id: of.organization_id,
            repository: of.repository.clone(),
            class: of.class.clone(),
            phase: self.phase,
            first_start: self.first_start,
            started_at: self.started_at,
            stopped_at: self.stopped_at,
            version: u64::try_from(self.version).unwrap_or(0),
        }
    }

    /// Whether other services need to hear of the change from `before` to this; progress within a phase is for watchers only.
    #[must_use]
    pub(crate) fn differs_for_others(&self, before: &Self) -> bool {
        self.phase != before.phase || self.started_at != before.started_at || self.stopped_at != before.stopped_at
    }
}

fn end_of(steps: &[Step], name: &str) -> Option<DateTime<Utc>> {
    let step = steps.iter().find(|step| step.name == name)?;
    let duration = i64::try_from(step.duration_us?).ok()?;
    step.started_at.checked_add_signed(TimeDelta::microseconds(duration))
}

fn micros(span: TimeDelta) -> Option<i64> {
    span.num_microseconds().map(|us| us.max(0))
}

/// A step measured between two reads of the clock.
#[must_use]
pub(crate) fn step(name: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Step {
    let duration_us = (to - from).num_microseconds().and_then(|us| u64::try_from(us).ok());
    Step { name: name.to_owned(), started_at: from, duration_us, detail: String::new(), phases: Vec::new() }
}

/// The name of a phase, as JSON and the database write it.
#[must_use]
pub(crate) const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Imagebuild => "Imagebuild",
        Phase::Creating => "Creating",
        Phase::Initializing => "Initializing",
        Phase::Running => "Running",
        Phase::Stopping => "Stopping",
        Phase::Stopped => "Stopped",
    }
}

/// Parses the name of a phase, in any case.
#[must_use]
pub(crate) fn parse_phase(text: &str) -> Option<Phase> {
    const ALL: [Phase; 7] = [
        Phase::Pending,
        Phase::Imagebuild,
        Phase::Creating,
        Phase::Initializing,
        Phase::Running,
        Phase::Stopping,
        Phase::Stopped,
    ];
    ALL.into_iter().find(|phase| phase_name(*phase).eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::{SystemClock, SystemEntropy};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn instance() -> Instance {
        let id = InstanceId::new(&SystemClock, &SystemEntropy);
        Instance::pending(id, WorkspaceId::new(&SystemClock, &SystemEntropy), true, at(0), Vec::new())
    }

    fn status(of: &Instance, version: u64, phase: Phase) -> InstanceStatus {
        InstanceStatus {
            instance_id: of.id,
            workspace_id: of.workspace_id,
            owner_id: UserId::new(&SystemClock, &SystemEntropy),
            version,
            phase,
            reason: String::new(),
            failed: false,
            node: None,
            image_digest: None,
            resources: None,
            steps: Vec::new(),
            started_at: None,
            stopped_at: None,
            last_activity: None,
            timeout_warning: None,
        }
    }

    fn applied(verdict: Verdict) -> Instance {
        match verdict {
            Verdict::Apply(instance) => *instance,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_older_word_never_wins_and_the_end_is_final() {
        let first = instance();
        let running = applied(first.judge(&status(&first, 5, Phase::Running), at(2)));
        assert_eq!(running.judge(&status(&first, 5, Phase::Creating), at(3)), Verdict::Stale);
        assert_eq!(running.judge(&status(&first, 4, Phase::Creating), at(3)), Verdict::Stale);
        let over = applied(running.judge(&status(&first, 6, Phase::Stopped), at(4)));
        let again = over.judge(&status(&first, 7, Phase::Running), at(5));
        assert_eq!(again, Verdict::Terminal { still_runs: true });
        assert_eq!(over.judge(&status(&first, 7, Phase::Stopped), at(5)), Verdict::Terminal { still_runs: false });
    }

    #[test]
    fn the_total_ends_where_the_last_step_ends_and_is_kept() {
        let first = instance();
        let mut word = status(&first, 1, Phase::Running);
        word.started_at = Some(at(1));
        word.steps = vec![step("ready", at(1), at(2))];
        let running = applied(first.judge(&word, at(9)));
        assert_eq!(running.total_us, Some(2_000_000));
        word.version = 2;
        word.started_at = Some(at(7));
        word.steps = vec![step("ready", at(7), at(8))];
        let later = applied(running.judge(&word, at(9)));
        assert_eq!(later.total_us, Some(2_000_000));
        assert_eq!(later.started_at, Some(at(1)), "the billable interval does not move");
        assert!(!later.differs_for_others(&running));
    }

    #[test]
    fn a_lost_run_closes_its_interval_and_a_stopped_one_tells_why() {
        let mut running = instance();
        running.started_at = Some(at(1));
        let lost = running.ended(LOST, true, at(10));
        assert_eq!((lost.phase, lost.stopped_at), (Phase::Stopped, Some(at(10))));
        let never = instance().ended("refused", true, at(10));
        assert_eq!(never.stopped_at, None, "what never ran costs nothing");
        running.stop_requested_at = Some(at(3));
        running.stop_reason = "stopped by Ada".into();
        let stopped = applied(running.judge(&status(&running, 9, Phase::Stopped), at(4)));
        assert_eq!(stopped.reason, "stopped by Ada");
    }

    #[test]
    fn phases_round_trip() {
        assert_eq!(parse_phase("running"), Some(Phase::Running));
        assert_eq!(parse_phase(phase_name(Phase::Imagebuild)), Some(Phase::Imagebuild));
        assert_eq!(parse_phase("x"), None);
    }
}
