//! The pod of an attempt.

use std::collections::BTreeMap;

use berth_workspace_crd::{
    ANNOTATION_DISK_BYTES, ANNOTATION_IO, ANNOTATION_NO_NEW_PRIVILEGES, ANNOTATION_PIDS, CONTAINER, FINALIZER,
    LABEL_ATTEMPT, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_WORKSPACE, MANAGED_BY, RUNTIME_CLASS, Workspace,
    WorkspaceClass, WorkspaceClassSpec,
};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

/// Environment variables that a workspace's settings must not replace.
const RESERVED_PREFIX: &str = "BERTH_";

/// Name of the pod of an attempt: the same for whoever makes it, so that making it twice is harmless.
#[must_use]
pub fn name(instance: &str, attempt: u32) -> String {
    format!("ws-{instance}-{attempt}")
}

/// The pod that should exist for an attempt.
#[must_use]
pub fn desired(
    workspace: &Workspace,
    class: &WorkspaceClass,
    attempt: u32,
    node: Option<&str>,
    base_image: &str,
    grace_seconds: u32,
) -> Pod {
    let instance = workspace.name_any();
    let spec = &workspace.spec;
    let class = &class.spec;
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.clone().unwrap_or_else(|| base_image.to_owned())),
        env: Some(environment(workspace, &instance)),
        resources: Some(resources(class)),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name(&instance, attempt)),
            namespace: workspace.namespace(),
            labels: Some(BTreeMap::from([
                (LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned()),
                (LABEL_INSTANCE.to_owned(), instance),
                (LABEL_WORKSPACE.to_owned(), spec.workspace_id.clone()),
                (LABEL_ATTEMPT.to_owned(), attempt.to_string()),
            ])),
            annotations: Some(annotations(class)),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: workspace.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: node.map(str::to_owned),
            runtime_class_name: Some(RUNTIME_CLASS.to_owned()),
            restart_policy: Some("Never".to_owned()),
            hostname: Some(host_name(&spec.workspace_name)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::from(grace_seconds)),
            // The node agent, which knows the disk, reacts to resource pressure; a kubelet would evict a running workspace.
            tolerations: Some(
                ["node.kubernetes.io/disk-pressure", "node.kubernetes.io/memory-pressure"]
                    .map(|key| Toleration {
                        key: Some(key.to_owned()),
                        operator: Some("Exists".to_owned()),
                        ..Toleration::default()
                    })
                    .to_vec(),
            ),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn annotations(class: &WorkspaceClassSpec) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (ANNOTATION_DISK_BYTES.to_owned(), class.disk_bytes.to_string()),
        (ANNOTATION_PIDS.to_owned(), class.pids.to_string()),
        // A node drain or a scale-down must not take a user's work away.
        ("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "false".to_owned()),
    ]);
    if let Some(io) = class.io_bytes_per_second {
        annotations.insert(ANNOTATION_IO.to_owned(), io.to_string());
    }
    if class.no_new_privileges {
        annotations.insert(ANNOTATION_NO_NEW_PRIVILEGES.to_owned(), "true".to_owned());
    }
    annotations
}

/// Limits are what the class promises. Requests are a fraction of them, because people mostly read and think: a quarter of the cores and half
/// of the memory keep a full node responsive without wasting it.
fn resources(class: &WorkspaceClassSpec) -> ResourceRequirements {
    let pair = |cpu_millis: u32, memory: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(format!("{cpu_millis}m"))),
            ("memory".to_owned(), Quantity(memory.to_string())),
        ])
    };
    ResourceRequirements {
        limits: Some(pair(class.cpu_millis, class.memory_bytes)),
        requests: Some(pair((class.cpu_millis / 4).max(1), class.memory_bytes / 2)),
        ..ResourceRequirements::default()
    }
}

fn environment(workspace: &Workspace, instance: &str) -> Vec<EnvVar> {
    let spec = &workspace.spec;
    let own = [
        ("BERTH_WORKSPACE_ID", spec.workspace_id.as_str()),
        ("BERTH_WORKSPACE_NAME", spec.workspace_name.as_str()),
        ("BERTH_INSTANCE_ID", instance),
        ("BERTH_WORKSPACE_CLASS", spec.class.as_str()),
        ("BERTH_REPOSITORY_ROOT", spec.checkout.path.as_str()),
    ];
    let var =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() };
    let settings = spec.env.iter().filter(|(name, _)| !name.starts_with(RESERVED_PREFIX));
    own.iter().map(|(name, value)| var(name, value)).chain(settings.map(|(name, value)| var(name, value))).collect()
}

/// A label of RFC 1123: names are already checked by api, but an object made by hand must not make a pod that no server takes.
fn host_name(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    let clean = clean.trim_matches('-');
    if clean.is_empty() { "workspace".to_owned() } else { clean.to_owned() }
}
