//! `cargo nextest run -p berth-ws-manager --release --no-capture figures`: how long a start takes when the node does nothing, and its writes.

use std::time::{Duration, Instant};

use berth_api_types::public::Phase;
use berth_kube_embedded::{MIGRATION, Store};

use crate::world::{Manager, World, config, eventually, start};

/// Writes that one start may take, those of the node among them.
const BUDGET: usize = 8;
/// The node's own: disk, workspace status, pod status.
const NODE: usize = 3;

#[tokio::test]
async fn a_start_stays_within_its_budget_of_writes() {
    // A fast store hides writes between two that follow each other closely, so the one of the server is tried, too.
    let database = berth_testkit::database().await;
    for (name, world) in [("in memory", World::new().await), ("on Postgres", on_postgres(&database).await)] {
        let (times, writes) = one_at_a_time(&world).await;
        assert!(writes + NODE <= BUDGET, "{name}: {writes} writes and {NODE} of the node");
        report(&format!("create -> running, node that does nothing, one at a time, {name}"), times);
    }
}

/// With the store that the server has.
async fn on_postgres(database: &berth_testkit::TestDatabase) -> World {
    sqlx::raw_sql(MIGRATION).execute(&database.pool).await.unwrap();
    World::on(Store::Postgres(Box::new((*database.pool.connect_options()).clone()))).await
}

/// How long 50 starts took, and the most writes of one.
async fn one_at_a_time(world: &World) -> (Vec<Duration>, usize) {
    let gate = world.gate();
    let manager = Manager::start(gate.client(), config());
    let mut watch = manager.watch().await;
    let (mut times, mut most) = (Vec::new(), 0);
    for _ in 0..50 {
        let start = start();
        let begin = Instant::now();
        gate.writes();
        manager.begin(&start).await;
        watch.phase(start.instance_id, Phase::Running).await;
        times.push(begin.elapsed());
        // The event of the start is written behind it, and counts.
        let mut writes = Vec::new();
        eventually("the start is told", || {
            writes.extend(gate.writes());
            std::future::ready(writes.iter().any(|write| write.contains("/events")))
        })
        .await;
        most = most.max(writes.len());
    }
    (times, most)
}

/// For `make bench`, on Postgres: writes what it measured, as JSON, to the file that `BERTH_FIGURES_OUTPUT` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_the_controller() {
    let Some(output) = std::env::var_os("BERTH_FIGURES_OUTPUT") else {
        println!("skipped: BERTH_FIGURES_OUTPUT is not set");
        return;
    };
    let database = berth_testkit::database().await;
    let world = on_postgres(&database).await;
    let (mut times, writes) = one_at_a_time(&world).await;
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    let figures = serde_json::json!({ "p50_ms": at(50), "p95_ms": at(95), "writes": writes + NODE });
    std::fs::write(output, figures.to_string()).unwrap();
}

#[tokio::test]
async fn a_hundred_starts_at_once_all_get_there() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let begin = Instant::now();
    let starts: Vec<_> = (0..100).map(|_| start()).collect();
    futures::future::join_all(starts.iter().map(|start| manager.begin(start))).await;
    let mut left: std::collections::HashSet<_> = starts.iter().map(|start| start.instance_id).collect();
    let mut times = Vec::new();
    while !left.is_empty() {
        if let Some(berth_api_types::internal::InstanceEvent::Status(status)) = watch.next().await
            && status.phase == Phase::Running
            && left.remove(&status.instance_id)
        {
            times.push(begin.elapsed());
        }
    }
    report("create -> running, 100 at once", times);
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p95 {:?}, max {:?} of {}", at(50), at(95), at(100), times.len());
}

/// Set `BERTH_FIGURES=1`; it takes a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_objects_are_known_within_two_seconds() {
    const COUNT: usize = 10_000;
    if std::env::var_os("BERTH_FIGURES").is_none() {
        println!("skipped: BERTH_FIGURES is not set");
        return;
    }
    let world = World::new().await;
    // One life gives an object with a full status.
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let model = start();
    manager.begin(&model).await;
    watch.phase(model.instance_id, Phase::Running).await;
    manager.end(model.instance_id, "stopped by Ada").await;
    watch.phase(model.instance_id, Phase::Stopped).await;
    manager.kill().await;
    let model = world.workspace(model.instance_id).await.unwrap();
    let size = serde_json::to_vec(&model).unwrap().len();

    let api = kube::Api::<berth_workspace_crd::Workspace>::namespaced(world.kube.clone(), "berth");
    let copies = (0..COUNT).map(|_| {
        let mut copy = berth_workspace_crd::Workspace::new(&start().instance_id.to_string(), model.spec.clone());
        copy.metadata.labels = model.metadata.labels.clone();
        copy.metadata.finalizers = model.metadata.finalizers.clone();
        let status = serde_json::json!({ "status": model.status });
        let api = api.clone();
        async move {
            let made = api.create(&Default::default(), &copy).await.unwrap();
            let name = made.metadata.name.unwrap();
            api.patch_status(&name, &Default::default(), &kube::api::Patch::Merge(&status)).await.unwrap();
        }
    });
    futures::StreamExt::for_each_concurrent(futures::stream::iter(copies), 32, |copy| copy).await;

    let before = resident_bytes();
    let begin = Instant::now();
    let manager = Manager::start(world.kube.clone(), config());
    let all: Vec<berth_api_types::internal::InstanceStatus> = manager.api.get("/internal/instances").await.unwrap();
    assert_eq!(all.len(), COUNT + 1);
    let listed = begin.elapsed();
    let grown = (resident_bytes() - before) / 1024 / 1024;
    println!("{COUNT} objects of {size} bytes: listed after {listed:?}, {grown} MiB more resident");
}

fn resident_bytes() -> i64 {
    let pages: i64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
