//! The steps of a start, timed, for the receipt and for progress.

use std::sync::Arc;
use std::time::Instant;

use berth_clock::SharedClock;
use berth_workspace_crd::{RuntimePhase, Step};
use chrono::{DateTime, SecondsFormat, Utc};
use tokio::sync::watch;

/// Name of the file in an instance's folder that tells how it started.
pub const START_LOG_FILE: &str = "start.log";

/// Steps of one start; clones write to the same list.
#[derive(Debug, Clone)]
pub struct Steps {
    clock: SharedClock,
    list: Arc<watch::Sender<Vec<Step>>>,
}

/// A step in progress; it ends when this is dropped.
#[derive(Debug)]
pub struct StepGuard {
    steps: Steps,
    name: &'static str,
    began: Instant,
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Steps {
    /// No steps yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, list: Arc::new(watch::Sender::new(Vec::new())) }
    }

    /// Follows the list.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Vec<Step>> {
        self.list.subscribe()
    }

    /// The list now.
    #[must_use]
    pub fn list(&self) -> Vec<Step> {
        self.list.borrow().clone()
    }

    /// The steps for people, a line each; `end` says what came of them.
    pub(crate) fn log(&self, end: &str) -> String {
        let mut log = String::new();
        for step in self.list() {
            let took = step.duration_micros.map_or_else(String::new, |micros| format!("{:.1} ms", micros as f64 / 1e3));
            let line = format!("{} {:<10} {took:>10}  {}", step.started_at, step.name, step.detail);
            log.push_str(line.trim_end());
            log.push('\n');
        }
        log.push_str(&format!("{} {end}\n", text(self.clock.now())));
        log
    }

    /// A step that is over already.
    pub fn record(&self, name: &str, started: DateTime<Utc>, ended: DateTime<Utc>) {
        let duration = (ended - started).num_microseconds().and_then(|micros| u64::try_from(micros).ok()).unwrap_or(0);
        let step = Step {
            name: name.to_owned(),
            started_at: text(started),
            duration_micros: Some(duration),
            detail: String::new(),
            phases: Vec::new(),
        };
        self.list.send_modify(|list| list.push(step));
    }

    /// Begins a step; one that has its name begins anew.
    #[must_use]
    pub fn begin(&self, name: &'static str) -> StepGuard {
        let step = Step {
            name: name.to_owned(),
            started_at: text(self.clock.now()),
            duration_micros: None,
            detail: String::new(),
            phases: Vec::new(),
        };
        self.list.send_modify(|list| {
            list.retain(|old| old.name != name);
            list.push(step);
        });
        StepGuard { steps: self.clone(), name, began: Instant::now() }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Step)) {
        self.list.send_modify(|list| {
            if let Some(step) = list.iter_mut().find(|step| step.name == name) {
                change(step);
            }
        });
    }
}

impl StepGuard {
    /// Says what is going on.
    pub fn tell(&self, detail: impl Into<String>) {
        let detail = detail.into();
        self.steps.change(self.name, |step| step.detail = detail);
    }

    /// What the runtime did meanwhile.
    pub fn phases(&self, phases: Vec<RuntimePhase>) {
        self.steps.change(self.name, |step| step.phases = phases);
    }

    /// A callback for progress, for code that knows nothing of steps.
    #[must_use]
    pub fn teller(&self) -> Arc<dyn Fn(String) + Send + Sync> {
        let (steps, name) = (self.steps.clone(), self.name);
        Arc::new(move |detail| steps.change(name, |step| step.detail = detail))
    }
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.steps.change(self.name, |step| step.duration_micros = Some(micros));
    }
}
