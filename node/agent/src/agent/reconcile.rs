//! The life of one pod on the node. Level-triggered: each round compares the pod with the instance, as both are now, and does what is
//! missing; so it does not matter where an earlier agent was killed.

use std::sync::Arc;
use std::time::Duration;

use berth_http::problem::chain;
use berth_workspace_crd::{ConditionStatus, ConditionType, Workspace};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admission::{Demand, Place};
use super::report::{RETRY, Write};
use super::{Inner, machine, pod};
use crate::instance::{Ended, Instance, Ready, StartError, StartRequest, Steps};

/// A start that takes longer than this shows its progress.
const SHOW_AFTER: Duration = Duration::from_millis(500);

/// What came of a round.
enum Round {
    /// Wait for the pod or the instance to change.
    Wait,
    /// The pod is released.
    Gone,
}

/// Follows one pod until it is gone. `pods` shows its newest state; `None` once the API no longer has it.
pub(super) async fn drive(agent: Arc<Inner>, mut pods: watch::Receiver<Option<Arc<Pod>>>, detached: CancellationToken) {
    let mut place: Option<Place> = None;
    let mut steps: Option<Steps> = None;
    loop {
        let current = pods.borrow_and_update().clone();
        let Some(current) = current else {
            return;
        };
        let driver = Driver { agent: &agent, pod: &current };
        let mut news = pods.clone();
        let round: BoxFuture<'_, Round> = if pod::is_deleting(&current) {
            Box::pin(driver.delete())
        } else {
            Box::pin(driver.advance(&mut news, &mut place, &mut steps))
        };
        tokio::select! {
            () = detached.cancelled() => return,
            round = round => match round {
                Round::Gone => return,
                Round::Wait => {}
            }
        }
        if pod::is_terminal(&current) || driver.instance().is_none_or(|instance| instance.ended().is_some()) {
            place = None;
        }
        let instance = driver.instance().filter(|instance| instance.ended().is_none());
        let ended = async {
            match instance {
                Some(instance) => {
                    instance.wait_ended().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = detached.cancelled() => return,
            changed = pods.changed() => if changed.is_err() { return },
            () = ended => {}
        }
    }
}

pub(super) struct Driver<'a> {
    pub(super) agent: &'a Arc<Inner>,
    pub(super) pod: &'a Arc<Pod>,
}

impl Driver<'_> {
    pub(super) fn id(&self) -> &str {
        pod::instance(self.pod).unwrap_or_default()
    }

    pub(super) fn attempt(&self) -> u32 {
        pod::attempt(self.pod)
    }

    /// The instance on the node, if it belongs to this pod and not to an earlier attempt's.
    fn instance(&self) -> Option<Arc<Instance>> {
        self.agent.node.instance(self.id()).filter(|instance| instance.record().request.attempt == self.attempt())
    }

    /// The Workspace it is for.
    fn workspace(&self) -> BoxFuture<'_, Result<Option<Workspace>, kube::Error>> {
        Box::pin(self.agent.writer.workspaces.get_opt(self.id()))
    }

    pub(super) fn image(&self) -> String {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.containers.first()?.image.clone()).unwrap_or_default()
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.agent.node.clock().now()
    }

    /// A pod that should run, or that has ended.
    async fn advance(
        &self,
        pods: &mut watch::Receiver<Option<Arc<Pod>>>,
        place: &mut Option<Place>,
        steps: &mut Option<Steps>,
    ) -> Round {
        match self.instance() {
            Some(instance) if instance.ended().is_some() => {
                if !pod::is_terminal(self.pod) {
                    self.report_end(&instance).await;
                }
            }
            Some(instance) if instance.record().ready => {
                if place.is_none() {
                    *place = Some(self.agent.admission.take_over(self.id(), &demand(&instance.record().request)));
                }
                if !pod::is_ready(self.pod) && !pod::is_terminal(self.pod) {
                    // An earlier agent had it ready and was killed before it reported so.
                    let image = instance.record().image.unwrap_or_default();
                    let timed = steps.clone().unwrap_or_else(|| Steps::new(self.agent.node.clock().clone()));
                    self.report_ready(&Ready { instance, image }, &timed).await;
                }
            }
            _ if pod::is_terminal(self.pod) => {}
            _ if pod::is_ready(self.pod) => {
                // It ran, and the node knows nothing of it: its record was lost.
                let exit = berth_sandbox::monitor::Exit {
                    outcome: berth_sandbox::monitor::Outcome::Unknown,
                    oom_killed: false,
                    finished_at_ms: u64::try_from(self.now().timestamp_millis()).unwrap_or(0),
                };
                self.report(&Ended { exit, node_restarted: false, disk_error: None }, "").await;
            }
            _ => return self.start(pods, place, steps).await,
        }
        Round::Wait
    }

    async fn start(
        &self,
        pods: &mut watch::Receiver<Option<Arc<Pod>>>,
        place: &mut Option<Place>,
        steps: &mut Option<Steps>,
    ) -> Round {
        let workspace = loop {
            match self.workspace().await {
                Ok(Some(workspace)) => break workspace,
                // The controller deletes the pod of a Workspace that is gone.
                Ok(None) => return Round::Wait,
                Err(error) => tracing::warn!(
                    instance = self.id(),
                    error = chain(&error),
                    "the Workspace of a pod cannot be read, trying again"
                ),
            }
            tokio::time::sleep(RETRY[2]).await;
        };
        let request = match pod::start_request(self.pod, &workspace) {
            Ok(request) => request,
            Err(error) => {
                self.report_failed(&error.to_string(), None).await;
                return Round::Wait;
            }
        };
        let cancel = CancellationToken::new();
        let mut work: BoxFuture<'_, ()> = Box::pin(self.run_start(request, &workspace, place, steps, &cancel));
        loop {
            tokio::select! {
                () = &mut work => return Round::Wait,
                changed = pods.changed() => {
                    let going = pods.borrow_and_update().as_deref().is_none_or(pod::is_deleting);
                    if going || changed.is_err() {
                        // The cancelled start clears up after itself; the next round deletes.
                        cancel.cancel();
                        work.await;
                        return Round::Wait;
                    }
                }
            }
        }
    }

    async fn run_start(
        &self,
        request: StartRequest,
        workspace: &Workspace,
        place: &mut Option<Place>,
        steps: &mut Option<Steps>,
        cancel: &CancellationToken,
    ) {
        let node = &self.agent.node;
        let timed = steps.insert(Steps::new(node.clock().clone())).clone();
        self.agent.note_start(self.id(), true);
        let asked = asked_at(self.id()).or_else(|| creation(workspace)).unwrap_or_else(|| self.now());

        if place.is_none() {
            let wants = demand(&request);
            let resumed = self.instance().is_some();
            let mut waited = false;
            let admitted = if resumed {
                Ok(self.agent.admission.take_over(self.id(), &wants))
            } else {
                let look = || machine::free(node.disks());
                let (tell, hear) = watch::channel(None);
                let admitting = self.agent.admission.admit(self.id(), &wants, look, &tell);
                let admitted = tokio::select! {
                    admitted = admitting => admitted,
                    () = self.show_queue(hear.clone()) => return,
                    () = cancel.cancelled() => return,
                };
                waited = hear.borrow().is_some();
                admitted
            };
            match admitted {
                Ok(taken) => *place = Some(taken),
                Err(reason) => {
                    self.report_failed(&reason, Some(&timed)).await;
                    return;
                }
            }
            if waited {
                let observed = [(ConditionType::Waiting, ConditionStatus::False, "", "")];
                self.insist(Write::Workspace(&observed, json!({}))).await;
            }
        }
        timed.record("place", asked, self.now());

        let new_disk = !node.disks().exists(&request.workspace_id).unwrap_or(true);
        let (disk_name, disk_size) = (request.workspace_id.clone(), request.limits.disk_bytes);
        let creating = async {
            if new_disk {
                // Before the bytes are there: a Disk object without bytes can be deleted by its name, bytes without an object never are.
                self.insist(Write::Disk(&disk_name, disk_size)).await;
            }
        };
        let showing = self.show_progress(&timed);
        let started: BoxFuture<'_, Result<Ready, StartError>> = Box::pin(node.start(request.clone(), &timed, cancel));
        let starting = async { tokio::join!(creating, started).1 };
        let result = tokio::select! {
            result = starting => result,
            () = showing => return,
        };
        let end = match &result {
            Ok(_) => "the workspace is ready".to_owned(),
            Err(error) => format!("the start failed: {}", chain(error)),
        };
        self.agent.node.log_start(self.id(), &timed.log(&end));
        match result {
            Ok(ready) => self.report_ready(&ready, &timed).await,
            Err(StartError::Cancelled) => {}
            Err(error) if error.may_pass() => self.report_rejected(&chain(&error)).await,
            Err(error) => self.report_failed(&chain(&error), Some(&timed)).await,
        }
        self.agent.note_start(self.id(), false);
    }

    /// Reports the place in the queue as it changes. Never ends.
    async fn show_queue(&self, mut hear: watch::Receiver<Option<(usize, String)>>) {
        loop {
            if hear.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let Some((position, reason)) = hear.borrow_and_update().clone() else { continue };
            let message = format!("waits for its turn on the node, position {position}: {reason}");
            let observed = [(ConditionType::Waiting, ConditionStatus::True, "NoRoom", message.as_str())];
            let fields = json!({ "node": self.agent.name });
            self.insist(Write::Workspace(&observed, fields)).await;
        }
    }

    /// Reports the steps of a long start as they change. Never ends.
    async fn show_progress(&self, steps: &Steps) {
        let mut list = steps.subscribe();
        tokio::time::sleep(SHOW_AFTER).await;
        loop {
            let now = list.borrow_and_update().clone();
            if let Err(error) = self.agent.writer.progress(self.id(), &self.agent.name, &now).await {
                tracing::debug!(error = chain(&error), "progress cannot be written");
            }
            tokio::time::sleep(SHOW_AFTER).await;
            if list.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A pod that is being deleted: stop it, report its end, release it.
    async fn delete(&self) -> Round {
        let mut grace = pod::grace_seconds(self.pod, self.agent.node.config().stop_grace_seconds);
        match self.instance() {
            Some(instance) => {
                if instance.ended().is_none() {
                    if let Ok(Some(workspace)) = self.workspace().await
                        && workspace.status.as_ref().is_some_and(|status| status.is(ConditionType::Aborted))
                    {
                        grace = 0;
                    }
                    self.agent.node.stop(self.id(), Duration::from_secs(grace)).await;
                }
                if !pod::is_terminal(self.pod) {
                    self.report_end(&instance).await;
                }
            }
            // It never ran here, or what is left is of another attempt.
            None if !pod::is_terminal(self.pod) => {
                let observed = [
                    (ConditionType::ContainerRunning, ConditionStatus::False, "NotStarted", ""),
                    (ConditionType::DiskSafe, ConditionStatus::True, "", ""),
                ];
                self.insist(Write::Workspace(&observed, json!({}))).await;
            }
            None => {}
        }
        self.insist(Write::Release).await;
        if self.instance().is_some() {
            let (node, id) = (self.agent.node.clone(), self.id().to_owned());
            let forgotten = tokio::task::spawn_blocking(move || node.forget(&id));
            if forgotten.await.is_err() {
                tracing::error!(instance = self.id(), "removing an instance's folder was interrupted");
            }
        }
        Round::Gone
    }
}

fn demand(request: &StartRequest) -> Demand {
    Demand {
        memory_bytes: u64::try_from(request.limits.memory_bytes).unwrap_or(u64::MAX),
        disk_bytes: request.limits.disk_bytes,
    }
}

/// When the instance was asked for: its id is a `UUIDv7`, which begins with milliseconds; the objects' own timestamps have only seconds.
fn asked_at(instance: &str) -> Option<DateTime<Utc>> {
    let hex: String = instance.chars().filter(|c| *c != '-').collect();
    if hex.chars().nth(12) != Some('7') {
        return None;
    }
    let millis = i64::from_str_radix(hex.get(..12)?, 16).ok()?;
    DateTime::from_timestamp_millis(millis)
}

fn creation(workspace: &Workspace) -> Option<DateTime<Utc>> {
    let time = workspace.metadata.creation_timestamp.as_ref()?;
    DateTime::from_timestamp_millis(time.0.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_asking_is_in_the_id() {
        let time = asked_at("0193a5b8-1c00-7abc-8def-0123456789ab").unwrap();
        assert_eq!(time.timestamp_millis(), 0x0193_a5b8_1c00);
        assert_eq!(asked_at("0193a5b8-1c00-4abc-8def-0123456789ab"), None);
        assert_eq!(asked_at(""), None);
    }
}
