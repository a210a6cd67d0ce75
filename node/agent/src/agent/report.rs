//! Reports about a pod and its Workspace, each retried until it is written.

use std::time::Duration;

use berth_http::problem::chain;
use berth_workspace_crd::{ConditionStatus, ConditionType, Resources};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::pod;
use super::reconcile::Driver;
use super::status::Observed;
use crate::instance::{Ended, Instance, Ready, Steps};

/// Pauses between tries of a failed write: short at first, then longer.
pub(super) const RETRY: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Something that must be written.
pub(super) enum Write<'a> {
    /// Conditions and fields of the Workspace's status.
    Workspace(&'a [Observed<'a>], Value),
    /// The pod's status.
    Pod(Value),
    /// The workspace's Disk, of this size.
    Disk(&'a str, u64),
    /// The pod's release.
    Release,
}

impl Driver<'_> {
    /// Writes until it is written.
    pub(super) async fn insist(&self, write: Write<'_>) {
        let writer = &self.agent.writer;
        let mut waits = RETRY.into_iter();
        let mut wait = RETRY[0];
        loop {
            let written = match &write {
                Write::Workspace(observed, fields) => {
                    writer.workspace(self.id(), self.attempt(), observed, fields.clone()).await
                }
                Write::Pod(status) => writer.pod(pod::name(self.pod), status.clone()).await,
                Write::Disk(workspace, size) => writer.create_disk(workspace, &self.agent.name, *size).await,
                Write::Release => writer.release_pod(self.pod).await,
            };
            let Err(error) = written else { return };
            wait = waits.next().unwrap_or(wait);
            tracing::warn!(instance = self.id(), error = chain(&error), "a status cannot be written, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    pub(super) fn report_ready<'s>(&'s self, ready: &'s Ready, steps: &'s Steps) -> BoxFuture<'s, ()> {
        Box::pin(self.report_ready_inner(ready, steps))
    }

    async fn report_ready_inner(&self, ready: &Ready, steps: &Steps) {
        let observed = [
            (ConditionType::ContentReady, ConditionStatus::True, "", ""),
            (ConditionType::ContainerRunning, ConditionStatus::True, "", ""),
        ];
        let limits = ready.instance.record().request.limits;
        let resources = Resources {
            cpu_millis: limits.cpu_millis,
            memory_bytes: limits.memory_bytes,
            disk_bytes: i64::try_from(limits.disk_bytes).unwrap_or(i64::MAX),
            pids: limits.pids,
        };
        let mut fields = json!({ "node": self.agent.name, "imageDigest": ready.image, "resources": resources });
        let list = steps.list();
        if !list.is_empty() {
            fields["steps"] = json!(list);
        }
        self.insist(Write::Workspace(&observed, fields)).await;
        let slot = ready.instance.record().slot;
        let address = self.agent.node.networks().network(slot).address.to_string();
        let status = pod::running_status(self.id(), &self.image(), &ready.image, &address, self.now());
        self.insist(Write::Pod(status)).await;
    }

    /// The user has to change something.
    pub(super) async fn report_failed(&self, message: &str, steps: Option<&Steps>) {
        tracing::info!(instance = self.id(), reason = message, "a workspace did not start");
        let status = pod::failed_status("StartError", message, self.now());
        self.insist(Write::Pod(status)).await;
        let observed = [
            (ConditionType::ContentReady, ConditionStatus::False, "StartError", message),
            (ConditionType::ContainerRunning, ConditionStatus::False, "StartError", message),
            (ConditionType::DiskSafe, ConditionStatus::True, "", ""),
        ];
        let mut fields = json!({ "node": self.agent.name });
        if let Some(steps) = steps {
            fields["steps"] = json!(steps.list());
        }
        self.insist(Write::Workspace(&observed, fields)).await;
    }

    /// The node is at fault: another attempt may succeed.
    pub(super) async fn report_rejected(&self, message: &str) {
        tracing::warn!(instance = self.id(), reason = message, "a start failed on this node");
        self.agent.node.forget(self.id());
        let status = pod::failed_status("Rejected", message, self.now());
        self.insist(Write::Pod(status)).await;
        let observed = [
            (ConditionType::PodRejected, ConditionStatus::True, "NodeFault", message),
            (ConditionType::StateWiped, ConditionStatus::True, "", ""),
        ];
        let fields = json!({ "node": self.agent.name });
        // Not DiskSafe, which would end the whole instance: a rejected attempt is followed by another.
        self.insist(Write::Workspace(&observed, fields)).await;
    }

    pub(super) async fn report_end(&self, instance: &Instance) {
        let Some(ended) = instance.ended() else { return };
        let digest = instance.record().image.unwrap_or_default();
        self.report(&ended, &digest).await;
    }

    pub(super) async fn report(&self, ended: &Ended, digest: &str) {
        let (_, _, reason, message) = pod::terminated(ended);
        let status = pod::ended_status(self.id(), &self.image(), digest, ended, self.now());
        self.insist(Write::Pod(status)).await;
        let disk = match &ended.disk_error {
            None => (ConditionType::DiskSafe, ConditionStatus::True, "", ""),
            Some(error) => (ConditionType::DiskFailed, ConditionStatus::True, "WriteFailed", error.as_str()),
        };
        let observed = [(ConditionType::ContainerRunning, ConditionStatus::False, reason, message.as_str()), disk];
        self.insist(Write::Workspace(&observed, json!({}))).await;
    }
}
