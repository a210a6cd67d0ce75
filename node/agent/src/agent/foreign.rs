//! Pods on this node that are no workspaces: somebody made them with kubectl, and there is no kubelet to run them. They are told so, and
//! their deletion is completed, as a kubelet would.

use berth_http::problem::chain;
use berth_workspace_crd::{LABEL_MANAGED_BY, MANAGED_BY};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::{Inner, pod};

/// Reason of a pod that is refused.
const REASON: &str = "NoWorkspace";
/// What its owner can do.
const MESSAGE: &str = "this node runs Berth's workspaces only: create a Workspace instead (`kubectl explain workspace.spec`, or `berth up`)";

impl Inner {
    /// Follows them, for ever.
    pub(super) async fn refuse_foreign_pods(&self) {
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.name))
            .labels(&format!("{LABEL_MANAGED_BY}!={MANAGED_BY}"));
        let pods = watcher::watcher(self.writer.pods.clone(), config).default_backoff().applied_objects();
        let mut pods = std::pin::pin!(pods);
        while let Some(pod) = pods.next().await {
            let refused = match pod {
                Ok(pod) => self.refuse(&pod).await,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the watch of other pods broke off, trying again");
                    continue;
                }
            };
            if let Err(error) = refused {
                tracing::warn!(error = chain(&error), "a pod that is no workspace cannot be refused");
            }
        }
    }

    async fn refuse(&self, pod: &Pod) -> Result<(), kube::Error> {
        if pod::is_deleting(pod) {
            return self.writer.release_pod(pod).await;
        }
        if pod::is_terminal(pod) {
            return Ok(());
        }
        tracing::info!(pod = pod::name(pod), "a pod that is no workspace is refused");
        self.writer.pod(pod::name(pod), pod::failed_status(REASON, MESSAGE, self.node.clock().now())).await
    }
}
