//! What `kubectl describe workspace` and `kubectl get events` show.

use berth_api_types::public::Phase;
use berth_ids::InstanceId;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::node::Behaviour;
use crate::world::{Manager, World, config, eventually, start};

/// Type, reason and message of each event about an instance, the oldest first, as kubectl asks for them.
async fn told(world: &World, id: InstanceId) -> Vec<[String; 3]> {
    let about = ListParams::default()
        .fields(&format!("involvedObject.name={id},involvedObject.namespace=berth,involvedObject.kind=Workspace"));
    let mut events = Api::<Event>::namespaced(world.kube.clone(), "berth").list(&about).await.unwrap().items;
    events.sort_by_key(|event| event.event_time.clone().unwrap().0);
    events.into_iter().map(|event| [event.type_, event.reason, event.message].map(Option::unwrap)).collect()
}

async fn tells(world: &World, id: InstanceId, expected: &[[&str; 3]]) {
    eventually(&format!("{expected:?} is told"), || async { told(world, id).await.len() >= expected.len() }).await;
    assert_eq!(told(world, id).await, expected.iter().map(|event| event.map(str::to_owned)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_life_is_told_in_events() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    world.node.plan(&one.instance_id.to_string(), vec![Behaviour::Reject]);
    manager.begin(&one).await;
    watch.phase(one.instance_id, Phase::Running).await;
    manager.end(one.instance_id, "stopped by Ada").await;
    watch.phase(one.instance_id, Phase::Stopped).await;
    let rejected = world.workspace(one.instance_id).await.unwrap().status.unwrap();
    let why = &rejected.condition(berth_workspace_crd::ConditionType::PodRejected).unwrap().message;
    let again = format!("attempt 2, because of the one before: {why}");
    let life = [
        ["Warning", "Retried", &again],
        ["Normal", "Started", "ready on node one"],
        ["Normal", "Stopping", "stopped by Ada"],
        ["Normal", "Stopped", "stopped by Ada"],
    ];
    tells(&world, one.instance_id, &life).await;
}

#[tokio::test]
async fn a_start_that_fails_is_told_with_its_reason() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    world.node.plan(&one.instance_id.to_string(), vec![Behaviour::Fail("the repository is gone")]);
    manager.begin(&one).await;
    let stopped = watch.phase(one.instance_id, Phase::Stopped).await;
    let failure = [["Warning", "ContentFailed", &stopped.reason], ["Normal", "Stopped", "nothing of it runs any more"]];
    tells(&world, one.instance_id, &failure).await;
}
