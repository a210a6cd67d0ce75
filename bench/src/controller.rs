//! The controller by itself: from a create to Running with a node that does nothing, the writes of that, and what ten thousand objects cost.

use std::process::Command;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};
use berth_api_types::internal::{InstanceEvent, InstanceStatus, StartInstance};
use berth_api_types::public::Phase;
use berth_clock::{SystemClock, SystemEntropy};
use berth_http::InternalClient;
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use berth_kube_embedded::{ApiServer, Builder, MIGRATION, Store};
use berth_workspace_crd::Workspace;
use berth_ws_manager::WsManager;
use futures::StreamExt as _;
use http::Method;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::figures::{Report, percentile};
use crate::idle_node;
use crate::memory::resident_mib;
use crate::server::Server;

const NAMESPACE: &str = berth_workspace_crd::NAMESPACE;

/// Measures on a database of its own in the server's Postgres, so that a commit costs what it costs.
pub(crate) async fn measure(server: &Server, starts: usize, objects: usize, report: &mut Report) -> anyhow::Result<()> {
    let url = |database: &str| format!("postgres:///{database}?user=berth&host={}/run/postgres", server.home.display());
    let mut admin = PgConnection::connect(&url("postgres")).await.context("the server's Postgres")?;
    sqlx::query("DROP DATABASE IF EXISTS berth_bench").execute(&mut admin).await?;
    sqlx::query("CREATE DATABASE berth_bench").execute(&mut admin).await?;
    let url = url("berth_bench");
    sqlx::raw_sql(MIGRATION).execute(&mut PgConnection::connect(&url).await?).await?;

    let model = run(&url, starts, report).await?;
    fill(&url, &model, objects).await?;
    let again = Command::new(std::env::current_exe()?).args(["--resync", &url]).output()?;
    anyhow::ensure!(again.status.success(), "the resync: {}", String::from_utf8_lossy(&again.stderr).trim());
    let figures: serde_json::Value = serde_json::from_slice(&again.stdout)?;
    anyhow::ensure!(figures["listed"] == json!(objects + starts), "{figures}: not every object was listed");
    let number = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    report.add(&format!("controller, from its start until it knows {objects} objects"), number("seconds"), 2.0, "s");
    report.add("the controller's memory with them, resident", number("controller_mib"), 150.0, "MiB");
    report.tell("the embedded API server's with them", format!("{:.1} MiB", number("server_mib")));
    sqlx::query("DROP DATABASE berth_bench").execute(&mut admin).await?;
    Ok(())
}

async fn cluster(url: &str) -> anyhow::Result<ApiServer> {
    let store = Store::Postgres(Box::new(PgConnectOptions::from_str(url)?));
    let mut builder = Builder::new().store(store).namespace(NAMESPACE);
    for definition in berth_workspace_crd::definitions() {
        builder = builder.crd(definition);
    }
    Ok(builder.start().await?)
}

/// Starts one after the other; one of them as it is when it runs.
async fn run(url: &str, starts: usize, report: &mut Report) -> anyhow::Result<Workspace> {
    let server = cluster(url).await?;
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let router = server.router().layer(from_fn(move |request: Request, next: Next| {
        // The leader election's renewals go on whether anything starts or not.
        if request.method() != Method::GET && !request.uri().path().contains("/leases/") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        next.run(request)
    }));
    let client = kube::Client::new(router, NAMESPACE);
    let node = tokio::spawn(idle_node::run(client.clone()));
    let (manager, stop) = start_manager(client.clone())?;
    let mut events = manager.events::<InstanceEvent>("/internal/instances/watch").await?;
    let (mut times, mut most) = (Vec::new(), 0);
    let mut last = None;
    for _ in 0..starts {
        let start = instance();
        writes.store(0, Ordering::Relaxed);
        let begin = Instant::now();
        manager.post::<_, InstanceStatus>("/internal/instances", &start).await?;
        let running = async {
            while let Some(event) = events.next().await {
                if let InstanceEvent::Status(status) = event?
                    && status.instance_id == start.instance_id
                    && status.phase == Phase::Running
                {
                    return anyhow::Ok(());
                }
            }
            bail!("the manager's watch ended")
        };
        tokio::time::timeout(Duration::from_secs(20), running)
            .await
            .context("an instance that does not get to run")??;
        times.push(begin.elapsed());
        most = most.max(writes.load(Ordering::Relaxed));
        last = Some(start.instance_id);
    }
    let name = last.context("no start was asked for")?.to_string();
    let model = Api::<Workspace>::namespaced(client, NAMESPACE).get(&name).await?;
    let size_kib = serde_json::to_vec(&model)?.len() as f64 / 1024.0;
    report.add(
        &format!("create to Running, node that does nothing, p50 of {starts}"),
        percentile(&mut times, 0.5),
        20.0,
        "ms",
    );
    report.tell("the same, p95", format!("{:.1} ms", percentile(&mut times, 0.95)));
    report.count("writes of one start", most, 8);
    report.add("the object of a running instance", size_kib, 8.0, "KiB");
    stop.cancel();
    node.abort();
    server.shutdown().await;
    Ok(model)
}

/// Makes copies of an object, status and all.
async fn fill(url: &str, model: &Workspace, objects: usize) -> anyhow::Result<()> {
    let server = cluster(url).await?;
    let api = Api::<Workspace>::namespaced(kube::Client::new(server.router(), NAMESPACE), NAMESPACE);
    let copies = (0..objects).map(|_| {
        let mut copy = Workspace::new(&instance().instance_id.to_string(), model.spec.clone());
        copy.metadata.labels.clone_from(&model.metadata.labels);
        copy.metadata.finalizers.clone_from(&model.metadata.finalizers);
        let (api, status) = (api.clone(), json!({ "status": model.status }));
        async move {
            let made = api.create(&PostParams::default(), &copy).await?;
            let name = made.metadata.name.unwrap_or_default();
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            anyhow::Ok(())
        }
    });
    let mut copies = futures::stream::iter(copies).buffer_unordered(32);
    while let Some(copy) = copies.next().await {
        copy?;
    }
    server.shutdown().await;
    Ok(())
}

/// In a process of its own, whose memory nothing else has used: the API server on what is there, then the controller over it.
pub(crate) async fn resync(url: &str) -> anyhow::Result<serde_json::Value> {
    let before = resident_mib()?;
    let server = cluster(url).await?;
    let with_server = resident_mib()?;
    let begin = Instant::now();
    let (manager, stop) = start_manager(kube::Client::new(server.router(), NAMESPACE))?;
    let all: Vec<InstanceStatus> = manager.get("/internal/instances").await?;
    let seconds = begin.elapsed().as_secs_f64();
    let with_controller = resident_mib()?;
    stop.cancel();
    Ok(json!({
        "listed": all.len(), "seconds": seconds, "server_mib": with_server - before, "controller_mib": with_controller - with_server,
    }))
}

fn start_manager(client: kube::Client) -> anyhow::Result<(InternalClient, CancellationToken)> {
    let manager = WsManager::new(berth_ws_manager::Config::default(), client, SystemClock::shared())?;
    let api = InternalClient::in_process("ws-manager", manager.internal_router());
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move { manager.run(token).await });
    Ok((api, stop))
}

fn instance() -> StartInstance {
    StartInstance {
        instance_id: InstanceId::new(&SystemClock, &SystemEntropy),
        workspace_id: WorkspaceId::new(&SystemClock, &SystemEntropy),
        workspace_name: "bench".to_owned(),
        owner_id: UserId::new(&SystemClock, &SystemEntropy),
        organization_id: OrganizationId::new(&SystemClock, &SystemEntropy),
        class: "small".to_owned(),
        image: None,
        context: ResolvedContext {
            context: Context {
                provider: Provider::Git,
                host: "git.example.com".to_owned(),
                owner: "team".to_owned(),
                name: "app".to_owned(),
                kind: ContextType::Repository,
                reference: None,
                path: None,
                line: None,
                number: None,
                clone_url: "https://git.example.com/team/app.git".to_owned(),
                web_url: "https://git.example.com/team/app".to_owned(),
            },
            fetch_ref: Some("refs/heads/main".to_owned()),
            branch: Some("main".to_owned()),
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            default_branch: Some("main".to_owned()),
        },
        git_name: "Bench".to_owned(),
        git_email: "bench@example.com".to_owned(),
        inactivity_seconds: None,
        env: std::collections::BTreeMap::new(),
        allow_private_hosts: Vec::new(),
    }
}
