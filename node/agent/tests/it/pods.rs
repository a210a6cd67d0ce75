//! The agent over a Kubernetes API: what it writes, and when it lets go.

use std::sync::Arc;
use std::time::Duration;

use berth_clock::SystemClock;
use berth_kube_embedded::{ApiServer, Builder};
use berth_node::{Deps, NoCredentials, NodeAgent};
use berth_testkit::{GitServer, Repository};
use berth_workspace_crd::{ConditionStatus, ConditionType, Disk, NAMESPACE, Workspace};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{self, run};

const OWNER: &str = "01994c3e-0000-7000-8000-00000000000a";
const ORGANIZATION: &str = "01994c3e-0000-7000-8000-00000000000b";

struct Cluster {
    server: ApiServer,
    client: Client,
    agent: NodeAgent,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    home: support::TestHome,
}

impl Cluster {
    async fn open(change: impl FnOnce(&mut berth_node::Config)) -> Option<Self> {
        let home = support::TestHome::lock(change).await?;
        let mut builder = Builder::new().namespace(NAMESPACE);
        for definition in berth_workspace_crd::definitions() {
            builder = builder.crd(definition);
        }
        let server = builder.start().await.unwrap();
        let client = Client::new(server.router(), NAMESPACE);
        let deps = Deps { clock: SystemClock::shared(), credentials: Arc::new(NoCredentials) };
        let agent = NodeAgent::new(home.config.clone(), client.clone(), deps).unwrap();
        let (shutdown, runner) = (CancellationToken::new(), agent.clone());
        let token = shutdown.clone();
        let running = tokio::spawn(async move { runner.run(token).await });
        Some(Self { server, client, agent, shutdown, running, home })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// What ws-manager makes for a start.
    async fn start(&self, number: u32, attempt: u32, repository: &Repository, memory: &str) -> (String, String) {
        let request = support::request(number, repository, "main");
        let id = request.instance_id.clone();
        if attempt == 1 {
            let workspace: Workspace = serde_json::from_value(json!({
                "apiVersion": "berth.dev/v1", "kind": "Workspace",
                "metadata": { "name": id, "labels": { "app.kubernetes.io/managed-by": "berth" } },
                "spec": {
                    "workspaceId": request.workspace_id, "workspaceName": "hello", "ownerId": OWNER, "organizationId": ORGANIZATION, "class": "small",
                    "checkout": request.checkout, "git": request.git, "allowPrivateHosts": request.allow_private_hosts,
                },
            }))
            .unwrap();
            self.api::<Workspace>().create(&PostParams::default(), &workspace).await.unwrap();
        }
        let name = format!("ws-{id}-{attempt}");
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "finalizers": ["berth.dev/instance"],
                "labels": {
                    "app.kubernetes.io/managed-by": "berth", "berth.dev/instance": id, "berth.dev/workspace": request.workspace_id,
                    "berth.dev/attempt": attempt.to_string(),
                },
                "annotations": { "berth.dev/disk-bytes": "1073741824", "berth.dev/pids": "256" },
            },
            "spec": {
                "nodeName": self.agent.name(), "runtimeClassName": "hull", "hostname": "hello", "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "workspace", "image": "localhost/berth/base:latest",
                    "env": [{ "name": "BERTH_INSTANCE_ID", "value": id }],
                    "resources": { "limits": { "cpu": "1000m", "memory": memory } },
                }],
            },
        }))
        .unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        (id, name)
    }

    /// Waits until the Workspace looks as wanted.
    async fn workspace(&self, id: &str, what: &str, wanted: impl Fn(&Workspace) -> bool) -> Workspace {
        wait(self.api::<Workspace>(), id, what, wanted).await
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
        for (workspace, ..) in self.agent.node().disks().list() {
            self.agent.node().disks().delete(&workspace).unwrap();
        }
        self.agent.close().unwrap();
        self.home.assert_clean();
        self.server.shutdown().await;
    }
}

async fn wait<K>(api: Api<K>, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let condition = |object: Option<&K>| object.is_some_and(&wanted);
    let found = tokio::time::timeout(
        Duration::from_secs(60),
        kube::runtime::wait::await_condition(api.clone(), name, condition),
    )
    .await;
    match found {
        Ok(object) => object.unwrap().unwrap(),
        Err(_) => panic!("{name} never became {what}: {:#?}", api.get_opt(name).await),
    }
}

fn is(workspace: &Workspace, kind: ConditionType, status: ConditionStatus, attempt: u32) -> bool {
    let status_now = workspace.status.as_ref().and_then(|s| s.condition(kind));
    status_now.is_some_and(|condition| condition.status == status && condition.attempt == attempt)
}

fn message(workspace: &Workspace, kind: ConditionType) -> String {
    workspace
        .status
        .as_ref()
        .and_then(|status| status.condition(kind))
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_and_is_released() {
    let Some(c) = Cluster::open(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let name = c.agent.name().to_owned();
    wait(Api::<Node>::all(c.client.clone()), &name, "ready", |node: &Node| {
        node.status
            .as_ref()
            .and_then(|s| s.conditions.as_ref())
            .is_some_and(|list| list.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    })
    .await;
    let (id, pod) = c.start(11, 1, &repository, "268435456").await;
    let workspace = c.workspace(&id, "ready", |w| is(w, ConditionType::ContentReady, ConditionStatus::True, 1)).await;
    let steps: Vec<String> = workspace.status.unwrap().steps.into_iter().map(|step| step.name).collect();
    for step in ["place", "image", "disk", "network", "container", "checkout", "ready"] {
        assert!(steps.iter().any(|name| name == step), "{steps:?} without {step}");
    }
    wait(c.api::<Pod>(), &pod, "Running", |pod: &Pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    })
    .await;
    let disk = c.api::<Disk>().list(&Default::default()).await.unwrap();
    assert_eq!(disk.items.len(), 1);
    assert_eq!(run(c.agent.node(), &id, &["cat", "README.md"]).await.unwrap(), "hi");

    c.api::<Pod>().delete(&pod, &DeleteParams::default()).await.unwrap();
    c.workspace(&id, "stopped", |w| {
        is(w, ConditionType::DiskSafe, ConditionStatus::True, 1)
            && is(w, ConditionType::ContainerRunning, ConditionStatus::False, 1)
    })
    .await;
    gone(c.api::<Pod>(), &pod).await;

    // The disk's object takes the bytes with it.
    let disk = disk.items[0].name_any();
    c.api::<Disk>().delete(&disk, &DeleteParams::default()).await.unwrap();
    gone(c.api::<Disk>(), &disk).await;
    assert!(c.agent.node().disks().list().is_empty());
    c.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_no_workspace_is_refused_and_can_be_deleted() {
    let Some(c) = Cluster::open(|_| {}).await else { return };
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "stranger" },
        "spec": { "nodeName": c.agent.name(), "containers": [{ "name": "main", "image": "busybox" }] },
    }))
    .unwrap();
    c.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    let refused = wait(c.api::<Pod>(), "stranger", "refused", |pod: &Pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed")
    })
    .await;
    let message = refused.status.unwrap().message.unwrap();
    assert!(message.contains("create a Workspace"), "{message}");
    c.api::<Pod>().delete("stranger", &DeleteParams::default()).await.unwrap();
    gone(c.api::<Pod>(), "stranger").await;
    c.close().await;
}

async fn gone<K>(api: Api<K>, name: &str)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let condition = |object: Option<&K>| object.is_none();
    let gone = tokio::time::timeout(
        Duration::from_secs(30),
        kube::runtime::wait::await_condition(api.clone(), name, condition),
    )
    .await;
    assert!(gone.is_ok(), "{name} is still there: {:#?}", api.get_opt(name).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_reasons_and_queues_are_shown() {
    let Some(c) = Cluster::open(|config| {
        config.memory_overcommit_percent = 100;
        config.max_instances = 1;
    })
    .await
    else {
        return;
    };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    // More than the machine has: refused for good.
    let (huge, _) = c.start(21, 1, &repository, "1Ti").await;
    let w = c.workspace(&huge, "refused", |w| is(w, ConditionType::ContentReady, ConditionStatus::False, 1)).await;
    assert!(message(&w, ConditionType::ContentReady).contains("choose a smaller class"));

    // A branch that is gone: the user's matter.
    let mut missing = Repository { url: repository.url.clone(), path: repository.path.clone() };
    missing.url = missing.url.replace("hello.git", "nothing.git");
    let (lost, _) = c.start(22, 1, &missing, "268435456").await;
    let w = c.workspace(&lost, "failed", |w| is(w, ConditionType::ContentReady, ConditionStatus::False, 1)).await;
    assert!(
        message(&w, ConditionType::ContentReady).contains("does not exist"),
        "{}",
        message(&w, ConditionType::ContentReady)
    );

    // One runs; the next waits in sight, and starts when the first is gone.
    let (first, pod) = c.start(23, 1, &repository, "268435456").await;
    c.workspace(&first, "ready", |w| is(w, ConditionType::ContentReady, ConditionStatus::True, 1)).await;
    let (second, second_pod) = c.start(24, 1, &repository, "268435456").await;
    let w = c.workspace(&second, "waiting", |w| is(w, ConditionType::Waiting, ConditionStatus::True, 1)).await;
    assert!(message(&w, ConditionType::Waiting).contains("position 1"));
    c.api::<Pod>().delete(&pod, &DeleteParams::default()).await.unwrap();
    c.workspace(&second, "ready", |w| {
        is(w, ConditionType::ContentReady, ConditionStatus::True, 1)
            && is(w, ConditionType::Waiting, ConditionStatus::False, 1)
    })
    .await;

    // Its main process ends: reported with the reason, the disk safe.
    // Who wants its supervisor meanwhile, and cannot reach it any more, hears that it does not run: no fault of the node's.
    let socket = c.home.config.home.join("run/instances").join(&second).join("supervisor.sock");
    std::fs::remove_file(socket).unwrap();
    let node = berth_http::InternalClient::in_process("node", c.agent.internal_router());
    let path = format!("/internal/instances/{second}/supervisor");
    let asked = tokio::spawn(async move { node.upgrade(&path, "berth-supervisor").await.map(drop) });
    support::kill_main_process(c.agent.node(), &second).await;
    match asked.await.unwrap() {
        Err(berth_http::CallError::Problem(problem)) => assert_eq!(problem.status, 404, "{problem:?}"),
        other => panic!("{other:?}"),
    }
    let w = c.workspace(&second, "ended", |w| is(w, ConditionType::ContainerRunning, ConditionStatus::False, 1)).await;
    assert!(
        message(&w, ConditionType::ContainerRunning).contains("killed by signal 9"),
        "{}",
        message(&w, ConditionType::ContainerRunning)
    );
    let ended = c.api::<Pod>().get(&second_pod).await.unwrap();
    assert_eq!(ended.status.unwrap().phase.as_deref(), Some("Failed"));
    for pod in c.api::<Pod>().list(&Default::default()).await.unwrap() {
        c.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        gone(c.api::<Pod>(), &pod.name_any()).await;
    }
    c.close().await;
}
