//! What the node agent writes to the API: merge patches of its own fields only, without a resource version.

use berth_clock::SharedClock;
use berth_workspace_crd::{
    Condition, ConditionStatus, ConditionType, DISK_FINALIZER, Disk, DiskSpec, FINALIZER, NAMESPACE, Step, Workspace,
};
use chrono::SecondsFormat;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Map, Value, json};

/// The objects of the API that the agent works on.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) pods: Api<Pod>,
    pub(super) workspaces: Api<Workspace>,
    pub(super) disks: Api<Disk>,
    clock: SharedClock,
}

/// A condition to set.
pub(super) type Observed<'a> = (ConditionType, ConditionStatus, &'a str, &'a str);

impl Writer {
    pub(super) fn new(client: &Client, clock: SharedClock) -> Self {
        Self {
            pods: Api::namespaced(client.clone(), NAMESPACE),
            workspaces: Api::namespaced(client.clone(), NAMESPACE),
            disks: Api::namespaced(client.clone(), NAMESPACE),
            clock,
        }
    }

    fn conditions(&self, attempt: u32, observed: &[Observed<'_>]) -> Value {
        let now = self.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let list: Map<String, Value> = observed
            .iter()
            .map(|(kind, status, reason, message)| {
                let condition = Condition {
                    status: *status,
                    reason: (*reason).to_owned(),
                    // An object with its status must stay small, however much git had to say.
                    message: message.chars().take(1000).collect(),
                    last_transition_time: now.clone(),
                    attempt,
                };
                (format!("{kind:?}"), json!(condition))
            })
            .collect();
        Value::Object(list)
    }

    /// Sets conditions and other fields of a Workspace's status. If the Workspace is gone that is no error: nobody waits for the status then.
    pub(super) fn workspace<'a>(
        &'a self,
        instance: &'a str,
        attempt: u32,
        observed: &[Observed<'_>],
        mut fields: Value,
    ) -> BoxFuture<'a, Result<(), Error>> {
        if !observed.is_empty() {
            fields["conditions"] = self.conditions(attempt, observed);
        }
        let patch = Patch::Merge(json!({ "status": fields }));
        Box::pin(async move {
            missing_is_fine(self.workspaces.patch_status(instance, &PatchParams::default(), &patch).await.map(drop))
        })
    }

    /// Shows how far a start is.
    pub(super) async fn progress(&self, instance: &str, node: &str, steps: &[Step]) -> Result<(), Error> {
        self.workspace(instance, 0, &[], json!({ "node": node, "steps": steps })).await
    }

    /// Sets a pod's status.
    pub(super) async fn pod(&self, name: &str, patch: Value) -> Result<(), Error> {
        missing_is_fine(self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
    }

    /// Removes the finalizer of a pod: nothing of it is on the node any more.
    pub(super) async fn release_pod(&self, pod: &Pod) -> Result<(), Error> {
        let name = super::pod::name(pod);
        let finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            let rest: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
            let patch = Patch::Merge(json!({ "metadata": { "finalizers": rest } }));
            missing_is_fine(self.pods.patch(name, &PatchParams::default(), &patch).await.map(drop))?;
        }
        if super::pod::is_deleting(pod) {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            missing_is_fine(self.pods.delete(name, &now).await.map(drop))?;
        }
        Ok(())
    }

    /// Records that the disk of a workspace is on this node.
    pub(super) async fn create_disk(&self, workspace: &str, node: &str, size_bytes: u64) -> Result<(), Error> {
        let mut disk = Disk::new(
            workspace,
            DiskSpec { node: node.to_owned(), size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX), image: None },
        );
        disk.metadata.finalizers = Some(vec![DISK_FINALIZER.to_owned()]);
        disk.metadata.labels = Some(
            [(berth_workspace_crd::LABEL_MANAGED_BY.to_owned(), berth_workspace_crd::MANAGED_BY.to_owned())].into(),
        );
        match self.disks.create(&PostParams::default(), &disk).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says what a disk costs.
    pub(super) async fn disk_usage(&self, workspace: &str, used_bytes: u64, initialized: bool) -> Result<(), Error> {
        let patch = Patch::Merge(json!({ "status": { "usedBytes": used_bytes, "initialized": initialized } }));
        missing_is_fine(self.disks.patch_status(workspace, &PatchParams::default(), &patch).await.map(drop))
    }

    /// Removes the finalizer of a Disk: its bytes are gone.
    pub(super) async fn release_disk(&self, disk: &Disk) -> Result<(), Error> {
        let rest: Vec<String> = disk
            .metadata
            .finalizers
            .clone()
            .unwrap_or_default()
            .into_iter()
            .filter(|finalizer| finalizer != DISK_FINALIZER)
            .collect();
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": rest } }));
        let name = disk.metadata.name.as_deref().unwrap_or_default();
        missing_is_fine(self.disks.patch(name, &PatchParams::default(), &patch).await.map(drop))
    }
}

fn missing_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
