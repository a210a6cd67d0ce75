//! The Node object and its Lease: that this machine is there, and what it has.

use std::time::Duration;

use berth_http::problem::chain;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};

use super::{Inner, machine};

/// Where Kubernetes keeps nodes' leases.
const LEASES: &str = "kube-node-lease";
const HEARTBEAT: Duration = Duration::from_secs(10);

fn exists_is_fine<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(Error::SerdeError)
}

/// Makes the Node object if it is missing, and says that it is ready.
pub(super) async fn register(agent: &Inner, client: &Client) -> Result<(), Error> {
    let name = &agent.name;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = from_json(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": crate::image::pull::architecture(),
            berth_workspace_crd::LABEL_MANAGED_BY: berth_workspace_crd::MANAGED_BY,
        } },
    }))?;
    exists_is_fine(nodes.create(&PostParams::default(), &node).await)?;
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status(agent))).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = from_json(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": LEASES } }))?;
    exists_is_fine(namespaces.create(&PostParams::default(), &namespace).await)?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let lease =
        from_json(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name } }))?;
    exists_is_fine(leases.create(&PostParams::default(), &lease).await)
}

fn status(agent: &Inner) -> Value {
    let capacity = agent.admission.capacity();
    let now = agent.node.clock().now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let free = machine::free(agent.node.disks());
    let short_of_disk = free.disk_bytes < capacity.min_free_disk_bytes;
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let resources = |memory: u64| {
        json!({
            "cpu": machine::processors().to_string(), "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": format!("{}Ki", capacity.disk_bytes / 1024), "pods": capacity.instances.to_string(),
        })
    };
    json!({ "status": {
        "capacity": resources(machine::memory_bytes()),
        "allocatable": resources(capacity.memory_bytes),
        "addresses": [{ "type": "Hostname", "address": agent.name }],
        "conditions": [
            condition("Ready", true, "NodeAgentReady", "the node agent runs"),
            condition("DiskPressure", short_of_disk, if short_of_disk { "BelowWatermark" } else { "EnoughFree" }, ""),
        ],
        "nodeInfo": {
            "architecture": crate::image::pull::architecture(), "operatingSystem": "linux", "bootID": agent.boot_id, "machineID": "",
            "systemUUID": "", "kernelVersion": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "osImage": "", "containerRuntimeVersion": concat!("hull://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("berth/", env!("CARGO_PKG_VERSION")), "kubeProxyVersion": "",
        },
    } })
}

/// Registers, then renews the Lease every ten seconds and the status every minute; registers again should somebody delete the Node.
pub(super) async fn heartbeat(agent: &Inner, client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let mut beat: u64 = 0;
    loop {
        let now = agent.node.clock().now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let lease = json!({ "spec": { "holderIdentity": agent.name, "leaseDurationSeconds": 40, "renewTime": now } });
        let done = async {
            if beat == 0 {
                register(agent, client).await?;
            } else if beat.is_multiple_of(6) {
                nodes.patch_status(&agent.name, &PatchParams::default(), &Patch::Merge(status(agent))).await?;
            }
            leases.patch(&agent.name, &PatchParams::default(), &Patch::Merge(lease)).await.map(drop)
        };
        match done.await {
            Ok(()) => {
                beat += 1;
                tokio::time::sleep(HEARTBEAT).await;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the node cannot say that it is there, trying again");
                beat = 0;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
