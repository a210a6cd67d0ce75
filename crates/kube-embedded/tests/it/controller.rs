//! A kube-rs Controller runs against the in-process router.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::support::{Workspace, WorkspaceSpec, server};

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self(error.to_string())
    }
}

async fn reconcile(
    workspace: Arc<Workspace>,
    client: Arc<Client>,
) -> Result<Action, kube::runtime::finalizer::Error<Failed>> {
    let api: Api<Workspace> = Api::default_namespaced((*client).clone());
    let maps: Api<ConfigMap> = Api::default_namespaced((*client).clone());
    finalizer(&api.clone(), "berth.dev/content", workspace, |event| async move {
        match event {
            Event::Apply(workspace) => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(workspace.name_any()),
                        owner_references: workspace.controller_owner_ref(&()).map(|owner| vec![owner]),
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([("image".into(), workspace.spec.image.clone().unwrap_or_default())])),
                    ..ConfigMap::default()
                };
                let params = PatchParams::apply("controller").force();
                maps.patch(&workspace.name_any(), &params, &Patch::Apply(&map)).await?;
                let status = json!({"status": {"phase": "Running"}});
                api.patch_status(&workspace.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
                Ok(Action::await_change())
            }
            Event::Cleanup(_) => Ok(Action::await_change()),
        }
    })
    .await
}

#[tokio::test]
async fn a_controller_reconciles_and_cleans_up() {
    let server = server().await;
    let client = Client::new(server.router(), "default");
    let workspaces: Api<Workspace> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::new(workspaces.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .graceful_shutdown_on(async move {
            let _ = stopped.await;
        })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client.clone()))
        .for_each(|_| async {});
    let controller = tokio::spawn(controller);

    let spec = WorkspaceSpec { owner: "ann".into(), replicas: 1, image: Some("debian".into()) };
    workspaces.create(&PostParams::default(), &Workspace::new("a", spec)).await.unwrap();
    let running = |object: Option<&Workspace>| {
        object
            .is_some_and(|object| object.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, await_condition(workspaces.clone(), "a", running)).await.unwrap().unwrap();
    let map = maps.get("a").await.unwrap();
    assert_eq!(map.data.unwrap()["image"], "debian");

    // The owned map is made again when it is deleted, and changed when the owner changes.
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let patch = json!({"spec": {"image": "fedora"}});
    workspaces.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let changed =
        |map: Option<&ConfigMap>| map.and_then(|map| map.data.as_ref()).is_some_and(|data| data["image"] == "fedora");
    tokio::time::timeout(limit, await_condition(maps.clone(), "a", changed)).await.unwrap().unwrap();

    let uid = workspaces.get("a").await.unwrap().meta().uid.clone().unwrap();
    let map_uid = maps.get("a").await.unwrap().meta().uid.clone().unwrap();
    workspaces.delete("a", &DeleteParams::default()).await.unwrap();
    tokio::time::timeout(limit, await_condition(workspaces, "a", conditions::is_deleted(&uid))).await.unwrap().unwrap();
    tokio::time::timeout(limit, await_condition(maps, "a", conditions::is_deleted(&map_uid))).await.unwrap().unwrap();
    stop.send(()).unwrap();
    controller.await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn streaming_lists_and_metadata_watches_work() {
    let server = server().await;
    let client = Client::new(server.router(), "default");
    let workspaces: Api<Workspace> = Api::default_namespaced(client.clone());
    let spec = || WorkspaceSpec { owner: "ann".into(), replicas: 1, image: None };
    workspaces.create(&PostParams::default(), &Workspace::new("a", spec())).await.unwrap();
    let mut stream = std::pin::pin!(watcher(workspaces.clone(), watcher::Config::default().streaming_lists()));
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            watcher::Event::Init => {}
            watcher::Event::InitApply(object) => seen.push(object.name_any()),
            watcher::Event::InitDone => {
                workspaces.create(&PostParams::default(), &Workspace::new("b", spec())).await.unwrap();
            }
            watcher::Event::Apply(object) => {
                seen.push(object.name_any());
                break;
            }
            watcher::Event::Delete(_) => panic!("nothing was deleted"),
        }
    }
    assert_eq!(seen, ["a", "b"]);
    let partial: Api<kube::core::PartialObjectMeta<Workspace>> = Api::default_namespaced(client);
    let mut metadata = std::pin::pin!(watcher(partial, watcher::Config::default()));
    let mut names = Vec::new();
    while let Some(event) = metadata.next().await {
        match event.unwrap() {
            watcher::Event::InitApply(object) => names.push(object.name_any()),
            watcher::Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(names, ["a", "b"]);
}
