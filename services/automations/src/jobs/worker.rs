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
use tokio::sync::Notify;

use super::keep_log::Listeners;
use super::{Jobs, WorkError};
use crate::domain::progress::{Action, Run, actions, is_of, phase};
use crate::store::executions::{self, Progress};
use crate::store::workspaces::Busy;

/// Bounds on the outputs of a run, as in the supervisor's protocol. They are untrusted, so they are checked again here.
const MAX_OUTPUTS: usize = 64;
const MAX_OUTPUT_BYTES: usize = 4096;
const MAX_KEY_BYTES: usize = 128;
const MAX_MESSAGE_BYTES: usize = 2000;

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
            tokio::select! {
                incoming = watching.receive() => match incoming? {
                    Some(Incoming::Event(Event::Unit(status))) => self.note(busy, &runs, &status).await?,
                    Some(_) => {}
                    None => return Err(ClientError::Closed.into()),
                },
                () = nudge.notified() => {}
            }
        }
    }

    async fn runs(&self, busy: &Busy) -> Result<Vec<Run>, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        executions::of_instance(&mut conn, busy.instance_id).await
    }

    /// Watches the units, and catches up on what happened while nobody watched.
    async fn watch(&self, busy: &Busy, runs: &[Run]) -> Result<SupervisorClient<Upgraded>, WorkError> {
        let mut supervisor = self.supervisors.connect(busy.instance_id).await?;
        let Reply::Units { units } = supervisor.request(&Request::UnitWatch).await? else {
            return Err(ClientError::Closed.into());
        };
        for unit in &units {
            self.note(busy, runs, unit).await?;
        }
        // A run whose unit is gone, or was run again without us, has ended and nobody saw how.
        let mut conn = self.pool.acquire().await?;
        for run in runs.iter().filter(|run| !run.phase.is_final()) {
            let Some(ours) = run.run else { continue };
            let newest = units.iter().find(|unit| unit.id == run.reference).map_or(0, |unit| unit.run);
            if i64::try_from(newest).unwrap_or(i64::MAX) != ours {
                let lost = Progress::ended(AutomationPhase::Stopped, "it ended while nobody watched");
                executions::advance(&mut conn, run.id, &lost, self.next_id(), self.clock.now()).await?;
            }
        }
        Ok(supervisor)
    }

    /// Does what there is to do; returns whether anything changed.
    async fn act(&self, busy: &Busy, runs: &[Run], todo: Vec<Action>) -> Result<bool, WorkError> {
        let mut supervisor = None;
        let mut changed = false;
        for action in todo {
            match action {
                Action::Complete(id) => {
                    self.end(id, Progress::ended(AutomationPhase::Succeeded, "")).await?;
                    changed = true;
                }
                Action::Fail(id, reason) => {
                    self.end(id, Progress::ended(AutomationPhase::Failed, reason)).await?;
                    changed = true;
                }
                Action::Cancel(id) => {
                    self.end(id, Progress::ended(AutomationPhase::Stopped, "it was stopped before it began")).await?;
                    changed = true;
                }
                Action::Start(id) => {
                    let Some(run) = runs.iter().find(|run| run.id == id) else { continue };
                    if supervisor.is_none() {
                        supervisor = Some(self.supervisors.connect(busy.instance_id).await?);
                    }
                    if let Some(supervisor) = &mut supervisor {
                        self.start(busy, supervisor, run).await?;
                        changed = true;
                    }
                }
                Action::Stop(id) => {
                    let Some(run) = runs.iter().find(|run| run.id == id) else { continue };
                    if supervisor.is_none() {
                        supervisor = Some(self.supervisors.connect(busy.instance_id).await?);
                    }
                    if let Some(supervisor) = &mut supervisor {
                        match supervisor.stop_unit(&run.reference).await {
                            Ok(status) => self.note(busy, std::slice::from_ref(run), &status).await?,
                            // It ended by itself meanwhile; the watch reports how.
                            Err(ClientError::Refused { message, .. }) => {
                                tracing::debug!(unit = %run.reference, %message, "a unit was not stopped");
                            }
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
        Ok(changed)
    }

    /// Starts a run's unit, exactly once: how often it has run before is recorded first.
    async fn start(
        &self,
        busy: &Busy,
        supervisor: &mut SupervisorClient<Upgraded>,
        run: &Run,
    ) -> Result<(), WorkError> {
        let Some(unit) = run.definition.unit(&run.reference) else { return Ok(()) };
        let units = supervisor.units().await?;
        let known = units.iter().find(|unit| unit.id == run.reference);
        let mut run = run.clone();
        if run.phase == AutomationPhase::Pending {
            let before = known.map_or(0, |unit| i64::try_from(unit.run).unwrap_or(i64::MAX));
            let mut conn = self.pool.acquire().await?;
            executions::starting(&mut conn, run.id, before).await?;
            (run.phase, run.runs_before) = (AutomationPhase::Starting, Some(before));
        } else if let Some(status) = known.filter(|status| is_of(&run, status)) {
            return self.note(busy, std::slice::from_ref(&run), status).await;
        }
        match supervisor.start_unit(unit).await {
            Ok(status) => {
                run.run = Some(i64::try_from(status.run).unwrap_or(i64::MAX));
                self.note(busy, std::slice::from_ref(&run), &status).await
            }
            Err(ClientError::Refused { message, .. }) => {
                self.end(run.id, Progress::ended(AutomationPhase::Failed, clean(&message))).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn end(&self, id: ExecutionId, progress: Progress) -> Result<(), WorkError> {
        let mut conn = self.pool.acquire().await?;
        executions::advance(&mut conn, id, &progress, self.next_id(), self.clock.now()).await?;
        Ok(())
    }

    fn next_id(&self) -> ExecutionId {
        ExecutionId::new(self.clock.as_ref(), self.entropy.as_ref())
    }

    /// Records what a unit's status means for the run that it belongs to.
    async fn note(&self, busy: &Busy, runs: &[Run], status: &UnitStatus) -> Result<(), WorkError> {
        let Some(run) = runs.iter().find(|run| !run.phase.is_final() && is_of(run, status)) else { return Ok(()) };
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
        self.end(run.id, progress).await
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
