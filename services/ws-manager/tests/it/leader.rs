//! Two replicas.

use berth_api_types::internal::InstanceStatus;
use berth_api_types::public::Phase;

use crate::world::{Manager, World, config, start};

fn named(identity: &str) -> berth_ws_manager::Config {
    berth_ws_manager::Config { identity: identity.to_owned(), ..config() }
}

#[tokio::test]
async fn one_leads_both_answer_and_a_clean_end_hands_over() {
    let world = World::new().await;
    let (gate_a, gate_b) = (world.gate(), world.gate());
    let a = Manager::start(gate_a.client(), named("a"));
    let one = start();
    let mut watch_a = a.watch().await;
    a.begin(&one).await;
    watch_a.phase(one.instance_id, Phase::Running).await;

    let b = Manager::start(gate_b.client(), named("b"));
    let mut watch_b = b.watch().await;
    watch_b.phase(one.instance_id, Phase::Running).await;
    gate_b.writes();
    let two = start();
    b.begin(&two).await;
    watch_b.phase(two.instance_id, Phase::Running).await;
    let writes = gate_b.writes();
    assert_eq!(writes.len(), 1, "b only took the request: {writes:?}");

    a.stop().await;
    let stopping: InstanceStatus = b.end(one.instance_id, "enough").await;
    assert!(stopping.phase < Phase::Stopped);
    watch_b.phase(one.instance_id, Phase::Stopped).await;
}
