//! A node agent that keeps its contract with the controller and runs nothing: the three writes of a start.

use std::collections::HashSet;

use berth_clock::{Clock as _, SystemClock};
use berth_workspace_crd::{
    Condition, ConditionStatus, DISK_FINALIZER, Disk, DiskSpec, LABEL_INSTANCE, LABEL_WORKSPACE, NAMESPACE, Workspace,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

const NAME: &str = "idle";

/// Registers the node and answers each new pod, until the task is aborted.
pub(crate) async fn run(client: Client) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": NAME } }))?;
    nodes.create(&PostParams::default(), &node).await?;
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    nodes.patch_status(NAME, &PatchParams::default(), &Patch::Merge(ready)).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NAME}"));
    let mut touched = std::pin::pin!(watcher(pods, config).default_backoff().applied_objects());
    let mut seen = HashSet::new();
    while let Some(pod) = touched.next().await {
        let pod = pod?;
        if seen.insert(pod.uid()) {
            answer(&client, &pod).await?;
        }
    }
    Ok(())
}

async fn answer(client: &Client, pod: &Pod) -> anyhow::Result<()> {
    let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
    let mut disk =
        Disk::new(&label(LABEL_WORKSPACE), DiskSpec { node: NAME.to_owned(), size_bytes: 1 << 30, image: None });
    disk.finalizers_mut().push(DISK_FINALIZER.to_owned());
    Api::<Disk>::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &disk).await?;
    let yes = Condition {
        status: ConditionStatus::True,
        reason: String::new(),
        message: String::new(),
        last_transition_time: berth_ws_manager::domain::time::text(SystemClock.now()),
        attempt: 1,
    };
    let status = json!({ "status": { "node": NAME, "conditions": { "ContentReady": yes, "ContainerRunning": yes } } });
    let workspaces = Api::<Workspace>::namespaced(client.clone(), NAMESPACE);
    workspaces.patch_status(&label(LABEL_INSTANCE), &PatchParams::default(), &Patch::Merge(status)).await?;
    let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}
