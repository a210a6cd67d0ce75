//! The controller: one kube-rs `Controller` over `Workspace`. A reconcile reads the caches, computes the status, does what has to be done and
//! writes what is new. All rules are in `domain`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::SharedClock;
use berth_workspace_crd::{Workspace, WorkspaceStatus};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action as Requeue};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::domain::actions::{Action, actions};
use crate::domain::happening::happenings;
use crate::domain::view::View;
use crate::domain::{pod, status};
use crate::metrics::InstanceMetrics;
use crate::recorder::Happenings;

/// Concurrent reconciles: enough to keep a batching store busy, few enough that the first pass over ten thousand objects stays small.
const CONCURRENCY: u16 = 64;
/// Turns of one reconcile before it is put off; each turn follows a write of its own.
const TURNS: usize = 8;
/// Longest sleep: a clock that was set must not hide a timeout for long.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Everything a reconcile needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) config: Arc<Config>,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: InstanceMetrics,
    pub(crate) happenings: Happenings,
    failures: Mutex<HashMap<String, u32>>,
}

/// A reconcile that could not be completed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// Making the pod.
    #[error("the pod of attempt {attempt} of instance {instance} could not be made")]
    CreatePod { instance: String, attempt: u32, source: kube::Error },
    /// Deleting or releasing a pod.
    #[error("pod {pod} could not be removed")]
    RemovePod { pod: String, source: kube::Error },
    /// Writing the status.
    #[error("the status of instance {instance} could not be written")]
    Status { instance: String, source: kube::Error },
    /// Removing the object.
    #[error("the object of instance {instance} could not be removed")]
    RemoveWorkspace { instance: String, source: kube::Error },
}

impl Context {
    pub(crate) fn new(cluster: Arc<Cluster>, config: Arc<Config>, clock: SharedClock) -> Self {
        let (metrics, happenings) = (InstanceMetrics::default(), Happenings::default());
        Self { cluster, config, clock, metrics, happenings, failures: Mutex::default() }
    }
}

/// Runs until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = context.cluster.synced() => {}
        () = stop.cancelled() => return,
    }
    let woken = UnboundedReceiverStream::new(context.cluster.wake_by());
    // Every change reaches it through the cluster's own watches, ahead of which are the answers to our writes.
    Controller::for_stream(futures::stream::pending(), context.cluster.store.clone())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(woken)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, retry, context)
        .for_each(|result| {
            match result {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a reconcile failed; it is tried again")
                }
            }
            std::future::ready(())
        })
        .await;
}

fn retry(workspace: Arc<Workspace>, _error: &ReconcileError, context: Arc<Context>) -> Requeue {
    let mut failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(workspace.name_any()).or_insert(0);
    *count = count.saturating_add(1);
    Requeue::requeue(Duration::from_millis(50 << (*count).min(9)))
}

async fn reconcile(workspace: Arc<Workspace>, context: Arc<Context>) -> Result<Requeue, ReconcileError> {
    let name = workspace.name_any();
    let mut next = None;
    for _ in 0..TURNS {
        match context.turn(&name).await? {
            Turn::Again => {}
            Turn::Done(when) => {
                next = when;
                break;
            }
        }
    }
    context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    Ok(match next {
        Some(when) => {
            let pause = (when - context.clock.now()).to_std().unwrap_or_default();
            // A little later, so that the clock has surely passed the mark.
            Requeue::requeue((pause + Duration::from_millis(1)).min(LONGEST_SLEEP))
        }
        None => Requeue::await_change(),
    })
}

enum Turn {
    /// Something was written that changes what is to be decided.
    Again,
    /// Nothing to do until something changes, or until then.
    Done(Option<DateTime<Utc>>),
}

impl Context {
    async fn turn(&self, name: &str) -> Result<Turn, ReconcileError> {
        let Some(workspace) = self.cluster.workspaces.get(name) else { return Ok(Turn::Done(None)) };
        let old = workspace.status.clone().unwrap_or_default();
        let (computed, todo, next) = self.decide(&workspace);
        let new = computed.status;
        let next = [computed.next, next].into_iter().flatten().min();

        if let Some(Action::CreatePod { attempt, node }) =
            todo.iter().find(|action| matches!(action, Action::CreatePod { .. }))
        {
            self.create_pod(&workspace, *attempt, node.as_deref()).await?;
            return Ok(Turn::Again);
        }
        let patch = status::patch(&old, &new);
        let ends =
            todo.iter().any(|action| matches!(action, Action::ReleaseWorkspace { .. } | Action::DeleteWorkspace));
        match patch {
            Some(patch) if ends => {
                // The last status is written, and so delivered to watchers, before the object goes.
                self.write_status(name, &old, &new, &patch).await?;
                Ok(Turn::Again)
            }
            Some(patch) if status::is_evidence(&old, &new) => {
                self.write_status(name, &old, &new, &patch).await?;
                self.act(&workspace, todo).await?;
                Ok(Turn::Done(next))
            }
            Some(patch) => {
                let (written, acted) =
                    tokio::join!(self.write_status(name, &old, &new, &patch), self.act(&workspace, todo));
                written.and(acted)?;
                Ok(Turn::Done(next))
            }
            None => {
                self.act(&workspace, todo).await?;
                Ok(Turn::Done(next))
            }
        }
    }

    fn decide(&self, workspace: &Workspace) -> (status::Computed, Vec<Action>, Option<DateTime<Utc>>) {
        let pods = self.pods(workspace);
        let nodes = self.cluster.nodes();
        let disk = self.cluster.disks.get(&workspace.spec.workspace_id);
        let class = self.cluster.classes.get(&workspace.spec.class);
        let view = View {
            pods: &pods,
            nodes: &nodes,
            disk: disk.as_deref(),
            class: class.as_deref(),
            policy: &self.config.policy,
            now: self.clock.now(),
        };
        let computed = status::status(workspace, &view);
        let (actions, next) = actions(workspace, &computed.status, &view);
        (computed, actions, next)
    }

    /// The names of pods follow from the attempt, so no list is searched.
    fn pods(&self, workspace: &Workspace) -> Vec<Arc<Pod>> {
        let name = workspace.name_any();
        let last = workspace.status.as_ref().map_or(0, |status| status.attempt) + 1;
        (1..=last).filter_map(|attempt| self.cluster.pods.get(&pod::name(&name, attempt))).collect()
    }

    async fn create_pod(&self, workspace: &Workspace, attempt: u32, node: Option<&str>) -> Result<(), ReconcileError> {
        let instance = workspace.name_any();
        // The class existed when this was decided; if it has gone since, the next pass reports that.
        let Some(class) = self.cluster.classes.get(&workspace.spec.class) else { return Ok(()) };
        let grace = self.config.policy.termination_grace_seconds;
        let pod = pod::desired(workspace, &class, attempt, node, &self.config.base_image, grace);
        match self.cluster.create_pod(&pod).await {
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 422) => {
                // Asking again would be answered alike.
                tracing::warn!(%instance, message = refusal.message, "the API server refuses the pod");
                let message = format!("the cluster refuses the workspace: {}", refusal.message);
                let old = workspace.status.clone().unwrap_or_default();
                let mut new = old.clone();
                status::fail(&mut new, "PodRefused", message, self.clock.now());
                match status::patch(&old, &new) {
                    Some(patch) => self.write_status(&instance, &old, &new, &patch).await,
                    None => Ok(()),
                }
            }
            result => result.map_err(|source| ReconcileError::CreatePod { instance, attempt, source }),
        }
    }

    async fn write_status(
        &self,
        name: &str,
        old: &WorkspaceStatus,
        new: &WorkspaceStatus,
        patch: &serde_json::Value,
    ) -> Result<(), ReconcileError> {
        self.cluster
            .patch_status(name, patch)
            .await
            .map_err(|source| ReconcileError::Status { instance: name.to_owned(), source })?;
        if let Some(workspace) = self.cluster.workspaces.get(name) {
            self.metrics.written(&workspace, old, new, self.clock.now());
            for happening in happenings(old, new) {
                self.happenings.tell(&workspace, happening);
            }
        }
        if old.phase != new.phase {
            tracing::info!(instance = name, attempt = new.attempt, from = ?old.phase, to = ?new.phase, reason = new.reason, "phase");
        }
        Ok(())
    }

    async fn act(&self, workspace: &Workspace, actions: Vec<Action>) -> Result<(), ReconcileError> {
        let instance = workspace.name_any();
        for action in actions {
            match action {
                // Done before anything else, by `turn`.
                Action::CreatePod { .. } => {}
                Action::DeletePod { name, uid, grace_seconds } => {
                    let result = self.cluster.delete_pod(&name, &uid, grace_seconds).await;
                    result.map_err(|source| ReconcileError::RemovePod { pod: name, source })?;
                }
                Action::ReleasePod { name, hold } => {
                    let result = self.cluster.release_pod(&name, &hold).await;
                    result.map_err(|source| ReconcileError::RemovePod { pod: name, source })?;
                }
                Action::ReleaseWorkspace { hold } => {
                    let result = self.cluster.release_workspace(&instance, &hold).await;
                    result.map_err(|source| ReconcileError::RemoveWorkspace { instance: instance.clone(), source })?;
                }
                Action::DeleteWorkspace => {
                    let result = self.cluster.delete_workspace(&instance).await;
                    result.map_err(|source| ReconcileError::RemoveWorkspace { instance: instance.clone(), source })?;
                }
            }
        }
        Ok(())
    }
}
