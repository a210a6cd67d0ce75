//! The controller is killed at each write of a start and of a stop, before it is sent and after it is done, and the next one goes on.

use std::time::Duration;

use berth_api_types::internal::{InstanceStatus, StartInstance, StopInstance};
use berth_api_types::public::Phase;
use berth_workspace_crd::ConditionType;

use crate::gate::{Death, Gate};
use crate::world::{Manager, PATIENCE, World, config, eventually, start};

/// What api does to an instance, tried again until it is answered, as api does.
async fn insist<T, F: Future<Output = Result<T, berth_http::CallError>>>(mut ask: impl FnMut() -> F) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Ok(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .ok()
}

/// The whole life; gives up when the gate strikes.
async fn live(manager: &Manager, gate: Option<&Gate>, world: &World, start: &StartInstance) -> bool {
    let id = start.instance_id;
    let life = async {
        insist(|| manager.api.post::<_, InstanceStatus>("/internal/instances", start)).await;
        reaches(world, start, Phase::Running).await;
        let stop = StopInstance { reason: "enough".into(), abort: false };
        let path = format!("/internal/instances/{id}/stop");
        insist(|| manager.api.post::<_, InstanceStatus>(&path, &stop)).await;
        reaches(world, start, Phase::Stopped).await;
        let path = format!("/internal/instances/{id}");
        insist(|| manager.api.delete(&path)).await;
        eventually("the object is gone", || async { world.workspace(id).await.is_none() }).await;
    };
    match gate {
        None => {
            life.await;
            true
        }
        Some(gate) => tokio::select! {
            () = life => true,
            () = gate.struck() => false,
        },
    }
}

async fn reaches(world: &World, start: &StartInstance, phase: Phase) {
    let text = format!("{phase:?}");
    let id = start.instance_id;
    eventually(&format!("{id} is {text}"), || async {
        let workspace = world.workspace(id).await;
        // A life that was over before it could be looked at is one that got there.
        workspace.is_none_or(|workspace| {
            workspace.status.is_some_and(|status| format!("{:?}", status.phase) == text || status.stopped_at.is_some())
        })
    })
    .await;
}

#[tokio::test]
async fn killed_at_each_write() {
    let world = World::new().await;
    // Once to its end, so that namespace and classes are there and the writes below are those of one life.
    let first = Manager::start(world.kube.clone(), config());
    live(&first, None, &world, &start()).await;
    first.kill().await;

    let mut deaths = 0;
    for death in [Death::Before, Death::After] {
        for at in 1.. {
            let gate = world.gate();
            let manager = Manager::start(gate.client(), config());
            // The classes are applied at each start: not what is tested here.
            let _: Vec<berth_api_types::internal::Class> = manager.api.get("/internal/classes").await.unwrap();
            gate.arm(at, death);
            let start = start();
            let whole = tokio::time::timeout(PATIENCE, live(&manager, Some(&gate), &world, &start)).await.unwrap();
            let writes = gate.writes();
            if whole && !gate.has_struck() {
                assert!(at > 6, "a life has more writes than {writes:?}");
                break;
            }
            deaths += 1;
            manager.kill().await;
            let last = writes.last().cloned().unwrap_or_default();

            // Whatever it left behind, the next one brings the same life to its end.
            let next = Manager::start(world.kube.clone(), config());
            let existed = world.workspace(start.instance_id).await;
            if let Some(workspace) = &existed {
                let attempt = workspace.status.as_ref().map_or(0, |status| status.attempt);
                assert!(attempt <= 1, "{death:?} at {at} ({last})");
            }
            live(&next, None, &world, &start).await;
            world.no_pods().await;
            next.kill().await;
        }
    }
    println!("the controller was killed at {deaths} writes and the next one always came to the end");
}

#[tokio::test]
async fn killed_while_a_workspace_runs_nothing_happens_to_it() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let start = start();
    manager.begin(&start).await;
    let before = watch.phase(start.instance_id, Phase::Running).await;
    manager.kill().await;

    let gate = world.gate();
    let next = Manager::start(gate.client(), config());
    let mut watch = next.watch().await;
    let after = watch.phase(start.instance_id, Phase::Running).await;
    assert_eq!(after, before);
    // It is led again when it acts again.
    next.end(start.instance_id, "enough").await;
    watch.phase(start.instance_id, Phase::Stopped).await;
    let touched: Vec<_> =
        gate.writes().into_iter().filter(|write| write.contains(&start.instance_id.to_string())).collect();
    assert!(touched.iter().all(|write| !write.starts_with("POST")), "nothing was made anew: {touched:?}");
    let status = world.workspace(start.instance_id).await.unwrap().status.unwrap();
    assert!(status.attempt == 1 && status.is(ConditionType::EverReady));
}
