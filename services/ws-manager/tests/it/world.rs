//! A cluster, a node, and ws-manager over them.

use std::time::Duration;

use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};
use berth_api_types::internal::{InstanceEvent, InstanceStatus, StartInstance, StopInstance};
use berth_api_types::public::Phase;
use berth_clock::{SystemClock, SystemEntropy};
use berth_http::InternalClient;
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use berth_kube_embedded::{ApiServer, Builder, Store};
use berth_workspace_crd::Workspace;
use berth_ws_manager::{Config, WsManager};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::node::FakeNode;

/// Longer than anything takes here, shorter than anybody waits.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Everything but ws-manager.
pub struct World {
    pub server: ApiServer,
    pub kube: kube::Client,
    pub node: FakeNode,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    pub async fn new() -> Self {
        Self::on(Store::Memory).await
    }

    pub async fn on(store: Store) -> Self {
        let mut builder = Builder::new().namespace("berth").store(store);
        for definition in berth_workspace_crd::definitions() {
            builder = builder.crd(definition);
        }
        let server = builder.start().await.unwrap();
        let kube = kube::Client::new(server.router(), "berth");
        let (node, task) = FakeNode::start(kube.clone(), "one").await;
        Self { server, kube, node, tasks: vec![task] }
    }

    pub fn gate(&self) -> Gate {
        Gate::new(self.server.router())
    }

    pub async fn workspace(&self, id: InstanceId) -> Option<Workspace> {
        Api::<Workspace>::namespaced(self.kube.clone(), "berth").get_opt(&id.to_string()).await.unwrap()
    }

    pub async fn pods(&self) -> Vec<Pod> {
        Api::<Pod>::namespaced(self.kube.clone(), "berth").list(&Default::default()).await.unwrap().items
    }

    /// Waits until no pod is left.
    pub async fn no_pods(&self) {
        eventually("no pod is left", || async { self.pods().await.is_empty() }).await;
    }
}

/// Waits for a condition that has no event of its own here.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut test: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !test().await {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A running ws-manager.
pub struct Manager {
    pub api: InternalClient,
    manager: WsManager,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.policy.retry_back_off_ms = 5;
    config.policy.retry_back_off_max_ms = 20;
    config
}

impl Manager {
    pub fn start(client: kube::Client, config: Config) -> Self {
        let manager = WsManager::new(config, client, SystemClock::shared()).unwrap();
        let api = InternalClient::in_process("ws-manager", manager.internal_router());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let running = manager.clone();
        let task = tokio::spawn(async move { running.run(token).await });
        Self { api, manager, task, shutdown }
    }

    /// As `/metrics` shows it.
    pub fn metrics(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        self.manager.register_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// SIGTERM.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.task.abort();
        (&mut self.task).await.ok();
    }

    pub async fn begin(&self, start: &StartInstance) -> InstanceStatus {
        self.api.post("/internal/instances", start).await.unwrap()
    }

    pub async fn end(&self, id: InstanceId, reason: &str) -> InstanceStatus {
        let stop = StopInstance { reason: reason.to_owned(), abort: false };
        self.api.post(&format!("/internal/instances/{id}/stop"), &stop).await.unwrap()
    }

    pub async fn watch(&self) -> Watch {
        let events = self.api.events("/internal/instances/watch").await.unwrap();
        Watch { events: events.boxed(), phases: Vec::new(), last: None }
    }
}

/// A reader of the watch.
pub struct Watch {
    events: futures::stream::BoxStream<'static, Result<InstanceEvent, berth_http::CallError>>,
    /// Phases seen of the instance waited for, without repeats.
    pub phases: Vec<Phase>,
    last: Option<InstanceStatus>,
}

impl Watch {
    pub async fn next(&mut self) -> Option<InstanceEvent> {
        let next = tokio::time::timeout(PATIENCE, self.events.next()).await;
        next.unwrap_or_else(|_| panic!("no event in time; so far {:?}, at last {:#?}", self.phases, self.last))
            .map(Result::unwrap)
    }

    /// The first status of an instance that passes the test.
    pub async fn until(&mut self, id: InstanceId, mut test: impl FnMut(&InstanceStatus) -> bool) -> InstanceStatus {
        let mut version = 0;
        loop {
            match self.next().await.unwrap_or_else(|| panic!("the watch ended")) {
                InstanceEvent::Status(status) if status.instance_id == id => {
                    assert!(status.version > version, "versions grow");
                    version = status.version;
                    if self.phases.last() != Some(&status.phase) {
                        self.phases.push(status.phase);
                    }
                    self.last = Some(InstanceStatus::clone(&status));
                    if test(&status) {
                        return *status;
                    }
                }
                _ => {}
            }
        }
    }

    pub async fn phase(&mut self, id: InstanceId, phase: Phase) -> InstanceStatus {
        self.until(id, |status| status.phase == phase).await
    }

    pub async fn gone(&mut self, id: InstanceId) {
        loop {
            if self.next().await == Some(InstanceEvent::Gone { instance_id: id }) {
                return;
            }
        }
    }
}

/// A start nobody asked for before.
pub fn start() -> StartInstance {
    StartInstance {
        instance_id: InstanceId::new(&SystemClock, &SystemEntropy),
        workspace_id: WorkspaceId::new(&SystemClock, &SystemEntropy),
        workspace_name: "hello".into(),
        owner_id: UserId::new(&SystemClock, &SystemEntropy),
        organization_id: OrganizationId::new(&SystemClock, &SystemEntropy),
        class: "small".into(),
        image: None,
        context: ResolvedContext {
            context: Context {
                provider: Provider::Git,
                host: "git.example".into(),
                owner: "owner".into(),
                name: "hello".into(),
                kind: ContextType::Repository,
                reference: None,
                path: None,
                line: None,
                number: None,
                clone_url: "https://git.example/owner/hello".into(),
                web_url: "https://git.example/owner/hello".into(),
            },
            fetch_ref: Some("refs/heads/main".into()),
            branch: Some("main".into()),
            commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
            default_branch: Some("main".into()),
        },
        git_name: "Ada".into(),
        git_email: "ada@example.org".into(),
        inactivity_seconds: None,
        env: Default::default(),
        allow_private_hosts: Vec::new(),
    }
}
