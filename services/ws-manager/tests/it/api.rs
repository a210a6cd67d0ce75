//! The internal API's answers.

use berth_api_types::internal::{Class, InstanceStatus, StopInstance};
use berth_api_types::public::Phase;
use berth_http::CallError;
use berth_workspace_crd::WorkspaceClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{Manager, World, config, eventually, start};

fn code(error: CallError) -> (u16, String) {
    match error {
        CallError::Problem(problem) => (problem.status, problem.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_start_is_idempotent_and_checked() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    manager.begin(&one).await;
    let again = manager.begin(&one).await;
    assert_eq!(again.instance_id, one.instance_id);
    watch.phase(one.instance_id, Phase::Running).await;
    assert_eq!(world.pods().await.len(), 1);

    let mut second = start();
    second.workspace_id = one.workspace_id;
    let refused = manager.api.post::<_, InstanceStatus>("/internal/instances", &second).await.unwrap_err();
    assert_eq!(code(refused), (409, "workspace_already_running".into()));

    let mut foreign = start();
    foreign.instance_id = one.instance_id;
    let refused = manager.api.post::<_, InstanceStatus>("/internal/instances", &foreign).await.unwrap_err();
    assert_eq!(code(refused), (409, "instance_conflict".into()));

    let mut unknown = start();
    unknown.class = "huge".into();
    let refused = manager.api.post::<_, InstanceStatus>("/internal/instances", &unknown).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("\"huge\"") && text.contains("large, medium, small"), "{text}");
    assert_eq!(code(refused), (422, "unknown_class".into()));
}

#[tokio::test]
async fn a_stop_is_idempotent_and_keeps_the_first_reason() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    manager.begin(&one).await;
    watch.phase(one.instance_id, Phase::Running).await;
    let before = manager.end(one.instance_id, "first").await;
    assert!(before.version > 0);
    manager.end(one.instance_id, "second").await;
    let stopped = watch.phase(one.instance_id, Phase::Stopped).await;
    assert_eq!(stopped.reason, "first");
    assert_eq!(manager.end(one.instance_id, "third").await.phase, Phase::Stopped);

    let nobody = start().instance_id;
    let path = format!("/internal/instances/{nobody}/stop");
    let missing = manager.api.post::<_, InstanceStatus>(&path, &StopInstance::default()).await.unwrap_err();
    assert_eq!(code(missing).0, 404);
}

#[tokio::test]
async fn show_list_and_watch_agree() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    manager.begin(&one).await;
    let running = watch.phase(one.instance_id, Phase::Running).await;
    let seen: InstanceStatus = manager.api.get(&format!("/internal/instances/{}", one.instance_id)).await.unwrap();
    assert_eq!(seen, running);
    let all: Vec<InstanceStatus> = manager.api.get("/internal/instances").await.unwrap();
    assert_eq!(all, [running]);
    let bad = manager.api.get::<InstanceStatus>("/internal/instances/nonsense").await.unwrap_err();
    assert_eq!(code(bad).0, 400);

    let busy = manager.api.delete(&format!("/internal/disks/{}", one.workspace_id)).await.unwrap_err();
    assert_eq!(code(busy), (409, "disk_in_use".into()));
}

#[tokio::test]
async fn classes_follow_the_configuration() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let names = |classes: Vec<Class>| classes.into_iter().map(|class| class.name).collect::<Vec<_>>();
    let classes: Vec<Class> = manager.api.get("/internal/classes").await.unwrap();
    assert_eq!(classes[0].memory_bytes, 2 << 30);
    assert_eq!(names(classes), ["small", "medium", "large"]);
    manager.stop().await;

    let mut changed = config();
    changed.classes.remove(0);
    changed.classes[0].credits_per_hour = "2.5".into();
    changed.default_class = "large".into();
    let manager = Manager::start(world.kube.clone(), changed);
    let classes: Vec<Class> = manager.api.get("/internal/classes").await.unwrap();
    assert_eq!(classes[1].credits_per_hour, "2.5");
    assert_eq!(names(classes), ["large", "medium"]);
}

#[tokio::test]
async fn a_configured_class_that_is_deleted_is_put_back() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    manager.begin(&start()).await;
    let classes = Api::<WorkspaceClass>::all(world.kube.clone());
    let before = classes.get("small").await.unwrap();
    for _ in 0..2 {
        classes.delete("small", &DeleteParams::default()).await.unwrap();
        eventually("the class is back", || async {
            classes.get_opt("small").await.unwrap().is_some_and(|class| class.spec == before.spec)
        })
        .await;
    }
    let mut own = WorkspaceClass::new("own", before.spec.clone());
    own.spec.credits_per_hour = "7".into();
    classes.create(&PostParams::default(), &own).await.unwrap();
    classes.delete("own", &DeleteParams::default()).await.unwrap();
    classes.delete("large", &DeleteParams::default()).await.unwrap();
    eventually("the class is back", || async { classes.get_opt("large").await.unwrap().is_some() }).await;
    assert!(classes.get_opt("own").await.unwrap().is_none(), "an administrator's own class is not ours to put back");
}

#[tokio::test]
async fn a_configured_class_that_is_edited_is_put_back() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    manager.begin(&start()).await;
    let classes = Api::<WorkspaceClass>::all(world.kube.clone());
    let before = classes.get("small").await.unwrap();
    // The last is a field that the configuration leaves out.
    let edits = [json!({ "creditsPerHour": "0" }), json!({ "pids": 4096 }), json!({ "ioBytesPerSecond": 1 })];
    for edit in edits {
        let patch = Patch::Merge(json!({ "spec": edit }));
        let edited = classes.patch("small", &PatchParams::default(), &patch).await.unwrap();
        assert_ne!(edited.spec, before.spec, "{edit}");
        eventually("the class is as it was", || async { classes.get("small").await.unwrap().spec == before.spec })
            .await;
    }
}

#[tokio::test]
async fn deleting_an_instance_that_runs_stops_it_in_good_order() {
    let world = World::new().await;
    let manager = Manager::start(world.kube.clone(), config());
    let mut watch = manager.watch().await;
    let one = start();
    manager.begin(&one).await;
    watch.phase(one.instance_id, Phase::Running).await;
    manager.api.delete(&format!("/internal/instances/{}", one.instance_id)).await.unwrap();
    watch.phase(one.instance_id, Phase::Stopped).await;
    watch.gone(one.instance_id).await;
    assert!(world.pods().await.is_empty());
    // Gone is success, too.
    manager.api.delete(&format!("/internal/instances/{}", one.instance_id)).await.unwrap();
}
