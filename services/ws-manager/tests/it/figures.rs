//! `cargo nextest run -p berth-ws-manager --release --no-capture figures`: how long a start takes when the node does nothing, and its writes.

use std::time::{Duration, Instant};

use berth_api_types::public::Phase;

use crate::world::{Manager, World, config, start};

/// Writes that one start may take, those of the node among them.
const BUDGET: usize = 8;
/// The node's own: disk, workspace status, pod status.
const NODE: usize = 3;

#[tokio::test]
async fn a_start_stays_within_its_budget_of_writes() {
    let world = World::new().await;
    let gate = world.gate();
    let manager = Manager::start(gate.client(), config());
    let mut watch = manager.watch().await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = start();
        let begin = Instant::now();
        gate.writes();
        manager.begin(&start).await;
        watch.phase(start.instance_id, Phase::Running).await;
        times.push(begin.elapsed());
        let writes = gate.writes();
        assert!(writes.len() + NODE <= BUDGET, "{writes:#?}");
    }
    report("create -> running, node that does nothing, one at a time", times);
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
