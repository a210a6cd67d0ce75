//! Advances the runs of one instance: starts what may start, stops what is to be stopped, records what the supervisor reports.
//!
//! The database says what is wanted and the supervisor what is; the worker keeps no state of its own, so it can end at any line and start
//! over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_api_types::automations::AutomationPhase;
use berth_http::Upgraded;
use berth_ids::ExecutionId;
use berth_supervisor_client::protocol::{Event, Reply, Request, UnitStatus};
use berth_supervisor_client::{ClientError, Incoming, SupervisorClient};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;

use super::keep_log::Listeners;
use super::{Jobs, WorkError};
use crate::domain::progress::{Action, Run, actions, is_of, phase};
use crate::store::executions::{self, Progress};
use crate::store::workspaces::{self, Busy};

/// Bounds on the outputs of a run, as in the supervisor's protocol. They are untrusted, so they are checked again here.
const MAX_OUTPUTS: usize = 64;
const MAX_OUTPUT_BYTES: usize = 4096;
const MAX_KEY_BYTES: usize = 128;
const MAX_MESSAGE_BYTES: usize = 2000;

/// Outputs of runs that ended together are fetched so many at a time.
const LOGS_AT_ONCE: usize = 16;

/// What became of a run.
type Outcome = (ExecutionId, Progress);

impl Jobs {
    /// Works until nothing is left to do for the instance.
    pub(super) async fn attend(&self, busy: &Busy, nudge: &Arc<Notify>) {
        let mut pause = Duration::from_millis(100);
        let mut listeners = Listeners::default();
        loop {
            let begun = tokio::time::Instant::now();
            match self.work(busy, nudge, &mut listeners).await {
                Ok(()) => return,
                Err(error) => {
                    let error = berth_http::problem::chain(&error);
                    tracing::info!(instance = %busy.instance_id, %error, "automations: will connect again");
                }
            }
            if begun.elapsed() > Duration::from_secs(10) {
                pause = Duration::from_millis(100);
            }
            // The connection of a stopping workspace breaks a moment before its event comes: then that event is waited for.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = nudge.notified() => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn work(&self, busy: &Busy, nudge: &Arc<Notify>, listeners: &mut Listeners) -> Result<(), WorkError> {
        let mut watch: Option<SupervisorClient<Upgraded>> = None;
        loop {
            self.read_file(busy).await?;
            let runs = self.runs(busy).await?;
            if runs.iter().all(|run| run.phase.is_final()) {
                return Ok(());
            }
            listeners.attend(self, busy.instance_id, &runs);
            let Some(watching) = &mut watch else {
                watch = Some(self.watch(busy, &runs).await?);
                continue;
            };
            let todo = actions(&runs);
            if !todo.is_empty() && self.act(busy, &runs, todo).await? {
                continue;
            }
            let changed = tokio::select! {
                changed = next_changes(watching) => changed?,
                () = nudge.notified() => continue,
            };
            let outcomes = self.outcomes(busy, &runs, changed).await;
            self.record(busy, outcomes).await?;
        }
    }

    async fn runs(&self, busy: &Busy) -> Result<Vec<Run>, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        executions::of_instance(&mut conn, busy.workspace_id, busy.instance_id).await
    }

    /// Watches the units, and catches up on what happened while nobody watched.
    async fn watch(&self, busy: &Busy, runs: &[Run]) -> Result<SupervisorClient<Upgraded>, WorkError> {
        let mut supervisor = self.supervisors.connect(busy.instance_id).await?;
        let Reply::Units { units } = supervisor.request(&Request::UnitWatch).await? else {
            return Err(ClientError::Closed.into());
        };
        let mut outcomes = Vec::new();
        // A run whose unit is gone, or was run again without us, has ended and nobody saw how.
        for run in runs.iter().filter(|run| !run.phase.is_final()) {
            let Some(ours) = run.run else { continue };
            let newest = units.iter().find(|unit| unit.id == run.reference).map_or(0, |unit| unit.run);
            if i64::try_from(newest).unwrap_or(i64::MAX) != ours {
                let lost = Progress::ended(AutomationPhase::Stopped, "it ended while nobody watched");
                outcomes.push((run.id, lost));
            }
        }
        outcomes.extend(self.outcomes(busy, runs, units).await);
        self.record(busy, outcomes).await?;
        Ok(supervisor)
    }

    /// Does what there is to do; returns whether anything changed.
    async fn act(&self, busy: &Busy, runs: &[Run], todo: Vec<Action>) -> Result<bool, WorkError> {
        let (mut outcomes, mut starts, mut stops) = (Vec::new(), Vec::new(), Vec::new());
        let run = |id| runs.iter().find(|run| run.id == id);
        for action in todo {
            match action {
                Action::Complete(id) => outcomes.push((id, Progress::ended(AutomationPhase::Succeeded, ""))),
                Action::Fail(id, reason) => outcomes.push((id, Progress::ended(AutomationPhase::Failed, reason))),
                Action::Cancel(id) => {
                    outcomes.push((id, Progress::ended(AutomationPhase::Stopped, "it was stopped before it began")));
                }
                Action::Start(id) => starts.extend(run(id)),
                Action::Stop(id) => stops.extend(run(id)),
            }
        }
        let changed = !outcomes.is_empty() || !starts.is_empty();
        if !starts.is_empty() || !stops.is_empty() {
            let mut supervisor = self.supervisors.connect(busy.instance_id).await?;
            if !starts.is_empty() {
                outcomes.extend(self.start(busy, &mut supervisor, &starts).await?);
            }
            for run in stops {
                match supervisor.stop_unit(&run.reference).await {
                    Ok(status) => outcomes.extend(self.outcome(busy, std::slice::from_ref(run), &status).await),
                    // It ended by itself meanwhile; the watch reports how.
                    Err(ClientError::Refused { message, .. }) => {
                        tracing::debug!(unit = %run.reference, %message, "a unit was not stopped");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.record(busy, outcomes).await?;
        Ok(changed)
    }

    /// Starts the units of runs, each exactly once: how often they have run before is recorded first.
    async fn start(
        &self,
        busy: &Busy,
        supervisor: &mut SupervisorClient<Upgraded>,
        runs: &[&Run],
    ) -> Result<Vec<Outcome>, WorkError> {
        // Nobody else starts units: what is said of them now holds until each one's turn.
        let units: BTreeMap<String, UnitStatus> =
            supervisor.units().await?.into_iter().map(|unit| (unit.id.clone(), unit)).collect();
        let before =
            |run: &Run| units.get(&run.reference).map_or(0, |unit| i64::try_from(unit.run).unwrap_or(i64::MAX));
        let new: Vec<_> =
            runs.iter().filter(|run| run.phase == AutomationPhase::Pending).map(|run| (run.id, before(run))).collect();
        let mut conn = self.pool.acquire().await?;
        executions::starting(&mut conn, &new).await?;
        drop(conn);
        let mut outcomes = Vec::new();
        for run in runs {
            let Some(unit) = run.definition.unit(&run.reference) else { continue };
            let mut run = (*run).clone();
            if run.phase == AutomationPhase::Pending {
                (run.phase, run.runs_before) = (AutomationPhase::Starting, Some(before(&run)));
            } else if let Some(status) = units.get(&run.reference).filter(|status| is_of(&run, status)) {
                outcomes.extend(self.outcome(busy, std::slice::from_ref(&run), status).await);
                continue;
            }
            match supervisor.start_unit(unit).await {
                Ok(status) => {
                    run.run = Some(i64::try_from(status.run).unwrap_or(i64::MAX));
                    outcomes.extend(self.outcome(busy, std::slice::from_ref(&run), &status).await);
                }
                Err(ClientError::Refused { message, .. }) => {
                    outcomes.push((run.id, Progress::ended(AutomationPhase::Failed, clean(&message))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(outcomes)
    }

    /// Records what became of runs, in one transaction: each costs a write to the disk.
    async fn record(&self, busy: &Busy, outcomes: Vec<Outcome>) -> Result<(), WorkError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        // Who ends all runs at once holds this lock too, so the two cannot wait for each other.
        workspaces::lock(&mut transaction, busy.workspace_id).await?;
        for (id, progress) in &outcomes {
            executions::advance(&mut transaction, *id, progress, self.next_id(), self.clock.now()).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What the units' statuses mean for the runs that they belong to.
    async fn outcomes(&self, busy: &Busy, runs: &[Run], units: Vec<UnitStatus>) -> Vec<Outcome> {
        futures::stream::iter(units)
            .map(|status| async move { self.outcome(busy, runs, &status).await })
            .buffered(LOGS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    async fn outcome(&self, busy: &Busy, runs: &[Run], status: &UnitStatus) -> Option<Outcome> {
        let run = runs.iter().find(|run| !run.phase.is_final() && is_of(run, status))?;
        let phase = phase(status.state);
        let exit_code = status.exit.map(berth_supervisor_client::protocol::ExitStatus::shell_code);
        let reason = match (&status.message, exit_code) {
            (Some(message), _) => clean(message),
            (None, Some(code)) if phase == AutomationPhase::Failed => {
                format!("its command ended with exit code {code}")
            }
            _ => String::new(),
        };
        let log = if phase.is_final() { self.end_of_log(busy, &run.reference).await } else { None };
        let progress = Progress {
            phase,
            reason,
            run: Some(i64::try_from(status.run).unwrap_or(i64::MAX)),
            exit_code,
            outputs: bounded(&status.outputs),
            log,
        };
        Some((run.id, progress))
    }

    /// The end of a unit's output, to be stored; `None` if it is not available.
    async fn end_of_log(&self, busy: &Busy, unit: &str) -> Option<Vec<u8>> {
        let request = Request::UnitLogs { id: unit.to_owned(), follow: false, tail_bytes: Some(self.kept_log_bytes) };
        let read = async {
            let mut supervisor = self.supervisors.connect(busy.instance_id).await?;
            supervisor.request(&request).await?;
            let mut log = Vec::new();
            let limit = usize::try_from(self.kept_log_bytes).unwrap_or(usize::MAX);
            while let Some(incoming) = supervisor.receive().await? {
                match incoming {
                    Incoming::Bytes(_, bytes) if log.len() < limit => log.extend_from_slice(&bytes),
                    Incoming::Bytes(..) => {}
                    Incoming::Event(_) => break,
                }
            }
            log.truncate(limit);
            Ok::<_, WorkError>(log)
        };
        match tokio::time::timeout(Duration::from_secs(5), read).await {
            Ok(Ok(log)) => Some(log),
            Ok(Err(error)) => {
                let error = berth_http::problem::chain(&error);
                tracing::info!(unit, %error, "the output of a unit cannot be kept");
                None
            }
            Err(_) => None,
        }
    }
}

/// The changes of units that the watch tells: waits for one, and takes with it those that have come meanwhile. Cancel safe.
async fn next_changes(watch: &mut SupervisorClient<Upgraded>) -> Result<Vec<UnitStatus>, ClientError> {
    let mut changed = Vec::new();
    let mut incoming = watch.receive().await?;
    loop {
        match incoming {
            Some(Incoming::Event(Event::Unit(status))) => changed.push(status),
            Some(_) => {}
            None if changed.is_empty() => return Err(ClientError::Closed),
            None => return Ok(changed),
        }
        match watch.receive().now_or_never() {
            Some(next) => incoming = next?,
            None => return Ok(changed),
        }
    }
}

/// Text from the workspace, made safe to store and to display.
pub(super) fn clean(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&clean, MAX_MESSAGE_BYTES).to_owned()
}

fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn bounded(outputs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    outputs
        .iter()
        .filter(|(key, _)| !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.contains(char::is_control))
        .take(MAX_OUTPUTS)
        .map(|(key, value)| (key.clone(), cut(&value.replace('\0', " "), MAX_OUTPUT_BYTES).to_owned()))
        .collect()
}
