//! Lives of instances.

use berth_api_types::internal::{SetTimeout, StopInstance};
use berth_api_types::public::Phase;
use berth_workspace_crd::{ConditionType, Disk};
use kube::Api;
use kube::api::DeleteParams;

use crate::node::Behaviour;
use crate::world::{Manager, World, config, eventually, start};

#[tokio::test]
async fn a_start_a_stop_and_a_start_again() {
    let world = World::new().await;
    let gate = world.gate();
    let manager = Manager::start(gate.client(), config());
    let mut watch = manager.watch().await;
    let mut first = start();
    for _ in 0..2 {
        manager.begin(&first).await;
        let running = watch.phase(first.instance_id, Phase::Running).await;
        assert_eq!((running.node.as_deref(), running.failed, running.reason.as_str()), (Some("one"), false, ""));
        assert!(running.started_at.is_some() && running.stopped_at.is_none());
        assert_eq!(running.steps.len(), 1);

        manager.end(first.instance_id, "stopped by Ada").await;
        let stopped = watch.phase(first.instance_id, Phase::Stopped).await;
        assert_eq!((stopped.reason.as_str(), stopped.failed), ("stopped by Ada", false));
        assert!(stopped.stopped_at >= stopped.started_at);
        world.no_pods().await;

        manager.api.delete(&format!("/internal/instances/{}", first.instance_id)).await.unwrap();
        watch.gone(first.instance_id).await;
        assert!(world.workspace(first.instance_id).await.is_none());
        let disks = Api::<Disk>::namespaced(world.kube.clone(), "berth");
        assert!(disks.get_opt(&first.workspace_id.to_string()).await.unwrap().is_some(), "the disk stays");
        first.instance_id = start().instance_id;
    }
    let metrics = manager.metrics();
    for line in [
        "instance_starts_total{class=\"small\"} 2",
        "instance_stops_total{class=\"small\",reason=\"requested\"} 2",
        "instance_startup_seconds_count 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(watch.phases.windows(2).all(|pair| pair[0] < pair[1] || pair[0] == Phase::Stopped), "{:?}", watch.phases);
}

#[tokio::test]
async fn rejected_attempts_are_made_again_out_of_the_users_sight() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    world.node.plan(&start.instance_id.to_string(), vec![Behaviour::Reject, Behaviour::Reject]);
    manager.begin(&start).await;
    watch.phase(start.instance_id, Phase::Running).await;
    assert!(watch.phases.iter().all(|phase| *phase <= Phase::Running), "{:?}", watch.phases);
    let status = world.workspace(start.instance_id).await.unwrap().status.unwrap();
    assert_eq!(status.attempt, 3);
    eventually("only the last pod is left", || async { world.pods().await.len() == 1 }).await;
}

#[tokio::test]
async fn too_many_rejections_are_a_failure_with_the_last_reason() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    world.node.plan(&start.instance_id.to_string(), vec![Behaviour::Reject; 9]);
    manager.begin(&start).await;
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    assert!(
        stopped.failed && stopped.reason.contains("5 attempts") && stopped.reason.contains("no memory left"),
        "{stopped:?}"
    );
    world.no_pods().await;
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    world.node.plan(&start.instance_id.to_string(), vec![Behaviour::Fail("branch \"x\" does not exist")]);
    manager.begin(&start).await;
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    assert_eq!((stopped.failed, stopped.reason.as_str()), (true, "branch \"x\" does not exist"));
    assert!(stopped.started_at.is_none());
    world.no_pods().await;
}

#[tokio::test]
async fn a_queue_is_seen_and_can_be_left() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    world.node.plan(&start.instance_id.to_string(), vec![Behaviour::Queue("waiting for 2 GiB of memory")]);
    manager.begin(&start).await;
    watch.until(start.instance_id, |status| status.reason == "waiting for 2 GiB of memory").await;
    let stop = StopInstance { reason: "deleted".into(), abort: true };
    let path = format!("/internal/instances/{}/stop", start.instance_id);
    manager.api.post::<_, berth_api_types::internal::InstanceStatus>(&path, &stop).await.unwrap();
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    assert!(!stopped.failed);
    world.no_pods().await;
}

#[tokio::test]
async fn a_main_process_that_ends_stops_the_instance() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    for (code, word, failed, part) in [
        (0, "Completed", false, "ended by itself"),
        (3, "Error", true, "exit status 3"),
        (137, "OOMKilled", true, "larger class"),
        (137, "NodeRestarted", false, "machine was restarted"),
        (255, "Unknown", true, "unknown"),
    ] {
        let start = start();
        manager.begin(&start).await;
        watch.phase(start.instance_id, Phase::Running).await;
        world.node.exit(&format!("ws-{}-1", start.instance_id), code, word).await;
        let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
        assert!(stopped.failed == failed && stopped.reason.contains(part), "{word}: {stopped:?}");
        world.no_pods().await;
    }
}

#[tokio::test]
async fn inactivity_warns_and_stops_and_a_timeout_can_be_changed() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let mut start = start();
    start.inactivity_seconds = Some(1000);
    manager.begin(&start).await;
    watch.phase(start.instance_id, Phase::Running).await;
    let path = format!("/internal/instances/{}/timeout", start.instance_id);
    let idle = world.workspace(start.instance_id).await.unwrap().status.unwrap();
    assert_eq!(idle.last_activity, None);
    manager.api.put(&path, &SetTimeout { inactivity_seconds: 2 }).await.unwrap();
    let status = world.workspace(start.instance_id).await.unwrap().status.unwrap();
    assert!(status.last_activity.is_some(), "it is counted from now on: {status:?}");
    let warned = watch.until(start.instance_id, |status| status.timeout_warning.is_some()).await;
    assert_eq!(warned.phase, Phase::Running);
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    assert_eq!((stopped.failed, stopped.reason.as_str()), (false, "stopped after 2 seconds without activity"));
}

#[tokio::test]
async fn activity_keeps_a_workspace_running() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let mut start = start();
    start.inactivity_seconds = Some(2);
    manager.begin(&start).await;
    let running = watch.phase(start.instance_id, Phase::Running).await;
    watch.until(start.instance_id, |status| status.timeout_warning.is_some()).await;
    manager.api.post_empty(&format!("/internal/instances/{}/activity", start.instance_id), &()).await.unwrap();
    watch.until(start.instance_id, |status| status.timeout_warning.is_none()).await;
    let status = world.workspace(start.instance_id).await.unwrap().status.unwrap();
    assert!(status.is(ConditionType::FirstUserActivity));
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    let ran = stopped.stopped_at.unwrap() - running.started_at.unwrap();
    assert!(ran.num_milliseconds() >= 2900, "{ran}");
}

#[tokio::test]
async fn a_node_that_goes_away_for_good_frees_its_workspaces() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    manager.begin(&start).await;
    watch.phase(start.instance_id, Phase::Running).await;
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(world.kube.clone());
    nodes.delete("one", &DeleteParams::default()).await.unwrap();
    let stopped = watch.phase(start.instance_id, Phase::Stopped).await;
    assert_eq!((stopped.failed, stopped.reason.as_str()), (false, "node one is gone from the cluster"));
    world.no_pods().await;
    manager.api.delete(&format!("/internal/disks/{}", start.workspace_id)).await.unwrap();
    let disks = Api::<Disk>::namespaced(world.kube.clone(), "berth");
    assert!(disks.get_opt(&start.workspace_id.to_string()).await.unwrap().is_none(), "nobody is left to wipe it");
}

#[tokio::test]
async fn a_workspace_waits_for_a_node_that_is_not_ready() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    world.node.set_ready(false).await;
    let start = start();
    manager.begin(&start).await;
    watch.until(start.instance_id, |status| status.reason == "waiting for a node to be ready").await;
    world.node.set_ready(true).await;
    let running = watch.phase(start.instance_id, Phase::Running).await;
    assert_eq!(running.reason, "");
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_while_delays_and_loses_nothing() {
    let world = World::new().await;
    let gate = world.gate();
    let manager = Manager::start(gate.client(), config());
    let mut watch = manager.watch().await;
    let (calm, busy) = (start(), start());
    manager.begin(&calm).await;
    watch.phase(calm.instance_id, Phase::Running).await;
    world.node.plan(&busy.instance_id.to_string(), vec![Behaviour::Hang]);
    manager.begin(&busy).await;
    watch.phase(busy.instance_id, Phase::Creating).await;

    gate.away(true);
    // What happens while nobody can be asked.
    world.node.exit(&format!("ws-{}-1", calm.instance_id), 0, "Completed").await;
    gate.away(false);
    let stopped = watch.phase(calm.instance_id, Phase::Stopped).await;
    assert!(stopped.reason.contains("ended by itself"), "{stopped:?}");
    manager.end(busy.instance_id, "enough").await;
    watch.phase(busy.instance_id, Phase::Stopped).await;
    world.no_pods().await;
}
