//! What to do next for the runs of an instance, and what a unit's status means for a run. Both are pure functions; the worker calls them
//! again after every change.

use std::collections::{BTreeMap, BTreeSet};

use berth_api_types::automations::{AutomationKind, AutomationPhase};
use berth_ids::ExecutionId;
use berth_supervisor_client::protocol::{UnitState, UnitStatus};

use super::definition::Definition;

/// A run, as far as decisions need it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: ExecutionId,
    pub(crate) reference: String,
    pub(crate) definition: Definition,
    pub(crate) phase: AutomationPhase,
    pub(crate) stop_requested: bool,
    /// Another run follows this one.
    pub(crate) restarts: bool,
    pub(crate) runs_before: Option<i64>,
    pub(crate) run: Option<i64>,
}

impl Run {
    /// Whether it is running or about to, so that nobody needs to start it.
    fn is_under_way(&self) -> bool {
        !self.phase.is_final() && !self.stop_requested && self.phase != AutomationPhase::Stopping
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Everything it depends on is done: start it.
    Start(ExecutionId),
    /// A task without a command is done once what it stands for is done.
    Complete(ExecutionId),
    /// It cannot be started.
    Fail(ExecutionId, String),
    /// It was stopped before it began.
    Cancel(ExecutionId),
    /// Ask its unit to stop.
    Stop(ExecutionId),
}

/// What to do now. `runs` has the newest run of each key in this instance.
pub(crate) fn actions(runs: &[Run]) -> Vec<Action> {
    let by_key: BTreeMap<&str, &Run> = runs.iter().map(|run| (run.reference.as_str(), run)).collect();
    runs.iter().filter_map(|run| action(run, &by_key)).collect()
}

fn action(run: &Run, by_key: &BTreeMap<&str, &Run>) -> Option<Action> {
    match run.phase {
        AutomationPhase::Pending if run.stop_requested => Some(Action::Cancel(run.id)),
        AutomationPhase::Pending => match dependencies(run, by_key) {
            Dependencies::Wait => None,
            Dependencies::Failed(reason) => Some(Action::Fail(run.id, reason)),
            Dependencies::Done if run.definition.command.is_none() => Some(Action::Complete(run.id)),
            Dependencies::Done => Some(Action::Start(run.id)),
        },
        // Requested before a crash, and the outcome was not recorded: request it again; the number of runs tells whether it began.
        AutomationPhase::Starting if run.run.is_none() => Some(Action::Start(run.id)),
        AutomationPhase::Starting | AutomationPhase::Running if run.stop_requested => Some(Action::Stop(run.id)),
        _ => None,
    }
}

enum Dependencies {
    Done,
    Wait,
    Failed(String),
}

fn dependencies(run: &Run, by_key: &BTreeMap<&str, &Run>) -> Dependencies {
    let mut waits = false;
    for key in &run.definition.depends_on {
        let failed = |what: &str| Dependencies::Failed(format!("{key} {what}, and this depends on it"));
        let Some(needed) = by_key.get(key.as_str()) else { return failed("was not started") };
        match (needed.phase, needed.definition.kind) {
            _ if needed.restarts => waits = true,
            _ if needed.stop_requested && !needed.phase.is_final() => return failed("was stopped"),
            (AutomationPhase::Succeeded, _) | (AutomationPhase::Running, AutomationKind::Service) => {}
            (AutomationPhase::Failed, _) => return failed("failed"),
            (AutomationPhase::Stopped, _) => return failed("was stopped"),
            (AutomationPhase::Idle, _) => return failed("was not started"),
            // Stopping although nobody asked: it was not ready in time, and its end tells that.
            (
                AutomationPhase::Pending
                | AutomationPhase::Starting
                | AutomationPhase::Running
                | AutomationPhase::Stopping,
                _,
            ) => waits = true,
        }
    }
    if waits { Dependencies::Wait } else { Dependencies::Done }
}

/// The keys of a plan that need a new run: those asked for, and what they depend on unless that is done or under way. `runs` has the newest
/// run of each key in this instance. A key whose run is ending needs another, for when that has ended.
pub(crate) fn to_run(groups: &[Vec<String>], asked: &BTreeSet<&str>, runs: &[Run]) -> Vec<String> {
    let by_key: BTreeMap<&str, &Run> = runs.iter().map(|run| (run.reference.as_str(), run)).collect();
    groups
        .iter()
        .flatten()
        .filter(|key| match by_key.get(key.as_str()) {
            None => true,
            Some(run) if run.is_under_way() || run.restarts => false,
            // A task that was asked for runs again; one that is only a dependency and has succeeded does not.
            Some(run) => run.phase != AutomationPhase::Succeeded || asked.contains(key.as_str()),
        })
        .cloned()
        .collect()
}

/// Whether a unit's status is about this run.
pub(crate) fn is_of(run: &Run, status: &UnitStatus) -> bool {
    let number = i64::try_from(status.run).unwrap_or(i64::MAX);
    run.reference == status.id
        && match (run.run, run.runs_before) {
            (Some(ours), _) => ours == number,
            (None, Some(before)) => run.phase == AutomationPhase::Starting && number > before,
            (None, None) => false,
        }
}

/// The phase of a unit.
pub(crate) const fn phase(state: UnitState) -> AutomationPhase {
    match state {
        UnitState::Starting => AutomationPhase::Starting,
        UnitState::Running => AutomationPhase::Running,
        UnitState::Stopping => AutomationPhase::Stopping,
        UnitState::Stopped => AutomationPhase::Stopped,
        UnitState::Succeeded => AutomationPhase::Succeeded,
        UnitState::Failed => AutomationPhase::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ExecutionId {
        format!("019ab0e2-7c1e-7d30-8f6b-{number:012x}").parse().unwrap()
    }

    fn run(number: u32, key: &str, kind: AutomationKind, phase: AutomationPhase, depends_on: &[&str]) -> Run {
        Run {
            id: id(number),
            reference: key.to_owned(),
            definition: Definition {
                kind,
                name: key.to_owned(),
                description: String::new(),
                role: crate::domain::file::Role::Default,
                command: Some("true".to_owned()),
                ready: None,
                ready_timeout_ms: 0,
                stop: None,
                triggered_by: vec![],
                depends_on: depends_on.iter().map(|key| (*key).to_owned()).collect(),
            },
            phase,
            stop_requested: false,
            restarts: false,
            runs_before: None,
            run: None,
        }
    }

    use AutomationKind::{Service, Task};
    use AutomationPhase::{Failed, Pending, Running, Starting, Stopped, Stopping, Succeeded};

    #[test]
    fn a_run_waits_for_tasks_to_succeed_and_services_to_be_ready() {
        let b = |phase_of_task, phase_of_service| {
            actions(&[
                run(1, "t", Task, phase_of_task, &[]),
                run(2, "s", Service, phase_of_service, &[]),
                run(3, "b", Task, Pending, &["t", "s"]),
            ])
        };
        assert!(b(Running, Running).is_empty(), "a running task is not done");
        assert!(b(Succeeded, Pending).contains(&Action::Start(id(2))));
        let mut started = run(2, "s", Service, Starting, &[]);
        started.run = Some(1);
        let waiting = [run(1, "t", Task, Succeeded, &[]), started, run(3, "b", Task, Pending, &["t", "s"])];
        assert!(actions(&waiting).is_empty());
        assert_eq!(b(Succeeded, Running), [Action::Start(id(3))]);
        assert_eq!(b(Failed, Running), [Action::Fail(id(3), "t failed, and this depends on it".to_owned())]);
        assert_eq!(b(Succeeded, Stopped), [Action::Fail(id(3), "s was stopped, and this depends on it".to_owned())]);
    }

    #[test]
    fn a_service_that_was_not_ready_in_time_fails_what_waits_for_it_as_failed() {
        let web = run(2, "web", Service, Pending, &["db"]);
        let mut db = run(1, "db", Service, Stopping, &[]);
        db.run = Some(1);
        assert!(actions(&[db.clone(), web.clone()]).is_empty());
        db.phase = Failed;
        assert_eq!(actions(&[db, web]), [Action::Fail(id(2), "db failed, and this depends on it".to_owned())]);
    }

    #[test]
    fn stops_cancels_and_tasks_without_a_command() {
        let mut pending = run(1, "a", Task, Pending, &["nosuch"]);
        assert!(matches!(actions(std::slice::from_ref(&pending)).as_slice(), [Action::Fail(..)]));
        pending.stop_requested = true;
        assert_eq!(actions(&[pending]), [Action::Cancel(id(1))]);
        let mut running = run(1, "a", Service, Running, &[]);
        running.run = Some(1);
        running.stop_requested = true;
        assert_eq!(actions(&[running]), [Action::Stop(id(1))]);
        let mut all = run(1, "all", Task, Pending, &[]);
        all.definition.command = None;
        assert_eq!(actions(&[all]), [Action::Complete(id(1))]);
    }

    #[test]
    fn a_crash_between_asking_and_noting_starts_nothing_twice() {
        let mut asked = run(1, "a", Task, Starting, &[]);
        asked.runs_before = Some(3);
        assert_eq!(actions(std::slice::from_ref(&asked)), [Action::Start(id(1))]);
        let status = |number| UnitStatus {
            id: "a".to_owned(),
            kind: berth_supervisor_client::protocol::UnitKind::Task,
            state: UnitState::Running,
            run: number,
            version: 1,
            pid: None,
            exit: None,
            message: None,
            started_at_ms: 0,
            ready_at_ms: None,
            finished_at_ms: None,
            outputs: BTreeMap::new(),
        };
        assert!(!is_of(&asked, &status(3)) && is_of(&asked, &status(4)));
        asked.run = Some(4);
        assert!(is_of(&asked, &status(4)) && !is_of(&asked, &status(5)));
    }

    #[test]
    fn what_is_done_is_not_done_again_for_another() {
        let groups = vec![vec!["install".to_owned(), "db".to_owned()], vec!["web".to_owned()]];
        let asked = BTreeSet::from(["web"]);
        let current = |install, db| [run(1, "install", Task, install, &[]), run(2, "db", Service, db, &[])];
        assert_eq!(to_run(&groups, &asked, &[]), ["install", "db", "web"]);
        assert_eq!(to_run(&groups, &asked, &current(Succeeded, Running)), ["web"]);
        assert_eq!(to_run(&groups, &asked, &current(Failed, Stopped)), ["install", "db", "web"]);
        assert_eq!(
            to_run(&groups, &BTreeSet::from(["install", "web"]), &current(Succeeded, Running)),
            ["install", "web"]
        );
    }

    #[test]
    fn what_is_ending_starts_again_once_and_others_wait_for_it() {
        let groups = vec![vec!["db".to_owned()], vec!["web".to_owned()]];
        let asked = BTreeSet::from(["web"]);
        let mut db = run(1, "db", Service, Stopping, &[]);
        db.run = Some(1);
        let web = run(2, "web", Service, Pending, &["db"]);
        assert_eq!(to_run(&groups, &asked, std::slice::from_ref(&db)), ["db", "web"]);
        db.phase = Running;
        db.stop_requested = true;
        assert_eq!(to_run(&groups, &asked, std::slice::from_ref(&db)), ["db", "web"]);
        assert!(matches!(actions(&[db.clone(), web.clone()])[..], [Action::Stop(_), Action::Fail(..)]));
        db.phase = Stopping;
        assert!(matches!(actions(&[db.clone(), web.clone()])[..], [Action::Fail(..)]));
        db.restarts = true;
        assert_eq!(to_run(&groups, &asked, std::slice::from_ref(&db)), ["web"]);
        assert!(actions(&[db, web]).is_empty());
    }
}
