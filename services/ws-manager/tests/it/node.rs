//! A node agent that keeps the contract and runs nothing: level-triggered, so that it survives whatever happens to the controller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use berth_clock::{Clock as _, SystemClock};
use berth_workspace_crd::{
    Condition, ConditionStatus, ConditionType, DISK_FINALIZER, Disk, DiskSpec, FINALIZER, LABEL_ATTEMPT,
    LABEL_INSTANCE, LABEL_WORKSPACE, Workspace,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// What the node does with an attempt.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// It runs.
    Run,
    /// It is refused for good.
    Reject,
    /// Its content cannot be made.
    Fail(&'static str),
    /// Nothing happens, until it is deleted.
    Hang,
    /// It waits in a queue first, with this message, then hangs there.
    Queue(&'static str),
}

/// The node.
#[derive(Clone)]
pub struct FakeNode {
    client: Client,
    name: String,
    plans: Arc<Mutex<HashMap<String, Vec<Behaviour>>>>,
    done: Arc<Mutex<HashMap<String, u32>>>,
}

impl FakeNode {
    /// Registers the node and starts its work.
    pub async fn start(client: Client, name: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        let nodes = Api::<Node>::all(client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let this = Self { client, name: name.to_owned(), plans: Arc::default(), done: Arc::default() };
        this.set_ready(true).await;
        let task = tokio::spawn(this.clone().work());
        (this, task)
    }

    pub async fn set_ready(&self, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// What is done with the first, second, … attempt of an instance; after that they run.
    pub fn plan(&self, instance: &str, behaviours: Vec<Behaviour>) {
        self.plans.lock().unwrap().insert(instance.to_owned(), behaviours);
    }

    async fn work(self) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), "berth");
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.name));
        let mut touched = std::pin::pin!(watcher(pods, config).default_backoff().applied_objects());
        while let Some(pod) = touched.next().await {
            let this = self.clone();
            match pod {
                Ok(pod) => {
                    // One at a time for a pod, many pods at once.
                    tokio::spawn(async move {
                        if let Err(error) = this.handle(&pod).await {
                            assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error:?}");
                        }
                    });
                }
                Err(error) => eprintln!("node: {error}"),
            }
        }
    }

    async fn handle(&self, pod: &Pod) -> Result<(), kube::Error> {
        let step = {
            // 0: seen for the first time, 1: being deleted for the first time. Later events of the same step change nothing.
            let mut done = self.done.lock().unwrap();
            let step = u32::from(pod.metadata.deletion_timestamp.is_some()) + 1;
            let seen = done.entry(pod.uid().unwrap()).or_insert(0);
            if *seen >= step {
                return Ok(());
            }
            *seen = step;
            step
        };
        let instance = pod.labels()[LABEL_INSTANCE].clone();
        let attempt: u32 = pod.labels()[LABEL_ATTEMPT].parse().unwrap();
        if step == 2 {
            return self.end(pod, &instance, attempt).await;
        }
        let behaviour = self
            .plans
            .lock()
            .unwrap()
            .get(&instance)
            .and_then(|plan| plan.get(usize::try_from(attempt - 1).unwrap()).cloned())
            .unwrap_or(Behaviour::Run);
        let yes = |kind: ConditionType| (format!("{kind:?}"), json!(condition(ConditionStatus::True, attempt, "")));
        match behaviour {
            Behaviour::Run => self.run(pod, &instance, attempt).await,
            Behaviour::Hang => Ok(()),
            Behaviour::Reject => {
                let rejected = json!(condition(ConditionStatus::True, attempt, "no memory left"));
                self.conditions(&instance, [("PodRejected".to_owned(), rejected), yes(ConditionType::StateWiped)]).await
            }
            Behaviour::Fail(message) => {
                let failed = json!(condition(ConditionStatus::False, attempt, message));
                self.conditions(&instance, [("ContentReady".to_owned(), failed)]).await
            }
            Behaviour::Queue(message) => {
                let waiting = json!(condition(ConditionStatus::True, attempt, message));
                self.conditions(&instance, [("Waiting".to_owned(), waiting)]).await
            }
        }
    }

    async fn run(&self, pod: &Pod, instance: &str, attempt: u32) -> Result<(), kube::Error> {
        let workspace = pod.labels()[LABEL_WORKSPACE].clone();
        let disks = Api::<Disk>::namespaced(self.client.clone(), "berth");
        let mut disk = Disk::new(&workspace, DiskSpec { node: self.name.clone(), size_bytes: 1 << 30, image: None });
        disk.finalizers_mut().push(DISK_FINALIZER.to_owned());
        match disks.create(&PostParams::default(), &disk).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => drop(result?),
        }
        let yes = json!(condition(ConditionStatus::True, attempt, ""));
        let step = json!({ "name": "disk", "startedAt": "2026-11-23T10:00:00.000000Z", "durationMicros": 7 });
        let status = json!({ "status": {
            "node": self.name, "imageDigest": "sha256:00", "steps": [step],
            "conditions": { "ContentReady": yes, "ContainerRunning": yes },
        } });
        self.workspace(instance, &status).await?;
        self.pod_status(pod, &json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
            .await
    }

    async fn end(&self, pod: &Pod, instance: &str, attempt: u32) -> Result<(), kube::Error> {
        let no = json!(condition(ConditionStatus::False, attempt, ""));
        let yes = json!(condition(ConditionStatus::True, attempt, ""));
        let ended =
            self.conditions(instance, [("ContainerRunning".to_owned(), no), ("DiskSafe".to_owned(), yes)]).await;
        // The object may be gone already; the pod still has to go.
        drop(ended);
        let pods = Api::<Pod>::namespaced(self.client.clone(), "berth");
        let rest: Vec<_> = pod.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({ "metadata": { "finalizers": rest } });
        pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        match pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop),
        }
    }

    /// The main process of an instance's pod ends.
    pub async fn exit(&self, pod: &str, code: i32, reason: &str) {
        let state = json!({ "terminated": { "exitCode": code, "reason": reason } });
        let container = json!({ "name": "workspace", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        let status =
            json!({ "phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [container] });
        let pods = Api::<Pod>::namespaced(self.client.clone(), "berth");
        let pod = pods.get(pod).await.unwrap();
        self.pod_status(&pod, &status).await.unwrap();
    }

    async fn pod_status(&self, pod: &Pod, status: &Value) -> Result<(), kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), "berth");
        let patch = json!({ "status": status });
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn conditions<const N: usize>(
        &self,
        instance: &str,
        conditions: [(String, Value); N],
    ) -> Result<(), kube::Error> {
        let conditions: serde_json::Map<_, _> = conditions.into_iter().collect();
        self.workspace(instance, &json!({ "status": { "conditions": conditions } })).await
    }

    async fn workspace(&self, instance: &str, patch: &Value) -> Result<(), kube::Error> {
        let workspaces = Api::<Workspace>::namespaced(self.client.clone(), "berth");
        workspaces.patch_status(instance, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}

fn condition(status: ConditionStatus, attempt: u32, message: &str) -> Condition {
    Condition {
        status,
        reason: String::new(),
        message: message.to_owned(),
        last_transition_time: berth_ws_manager::domain::time::text(SystemClock.now()),
        attempt,
    }
}
