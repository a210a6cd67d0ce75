//! ws-manager: the controller over `Workspace` resources, and the internal API over them. It speaks the Kubernetes API and nothing else.
//!
//! Every replica follows the cluster and serves the internal API; one, the holder of a lease, runs the controller. Nothing is kept in memory
//! that is not in the cluster: a replica can be killed between any two writes, and the next one goes on from what it finds.

mod cache;
mod cluster;
pub mod config;
mod controller;
mod directory;
pub mod domain;
mod leader;
pub mod manifests;
mod metrics;
mod recorder;
mod routes;
mod setup;

use std::sync::Arc;

use berth_clock::SharedClock;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use config::{ClassConfig, Config, ConfigError, Policy};

/// The service.
#[derive(Clone, Debug)]
pub struct WsManager {
    context: Arc<controller::Context>,
}

impl WsManager {
    /// Builds the service; no call to the cluster is made yet.
    pub fn new(config: Config, client: Client, clock: SharedClock) -> Result<Self, ConfigError> {
        config.validate()?;
        let cluster = Arc::new(cluster::Cluster::new(client, config.namespace.clone()));
        Ok(Self { context: Arc::new(controller::Context::new(cluster, Arc::new(config), clock)) })
    }

    /// `/internal/instances`, `/internal/disks`, `/internal/classes`. Answers once [`WsManager::run`] has listed the cluster, 503 when that
    /// takes longer than ten seconds.
    pub fn internal_router(&self) -> axum::Router {
        routes::router(self.context.clone())
    }

    /// Adds `instance_starts`, `instance_retries`, `instance_stops` and `instance_startup_seconds`.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.context.metrics.register(registry);
    }

    /// Prepares the cluster, follows it, and runs the controller whenever this replica leads, until `shutdown`. Whatever fails is retried: an
    /// API server that is away for a while is no reason to end.
    pub async fn run(&self, shutdown: CancellationToken) {
        let client = &self.context.cluster.client;
        tokio::select! {
            () = setup::ensure(client, &self.context.config) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = self.context.cluster.follow() => {}
            () = self.context.happenings.write(client.clone(), &self.context.config.identity) => {}
            () = self.lead(&shutdown) => {}
        }
    }

    async fn lead(&self, shutdown: &CancellationToken) {
        let config = &self.context.config;
        let client = self.context.cluster.client.clone();
        let elector =
            leader::Elector::new(client, &config.namespace, config.identity.clone(), self.context.clock.clone());
        loop {
            let lease = tokio::select! {
                lease = elector.acquire() => lease,
                () = shutdown.cancelled() => return,
            };
            tracing::info!(identity = config.identity, "this replica runs the controller");
            tokio::select! {
                () = controller::run(self.context.clone(), shutdown.clone()) => {}
                () = setup::keep_classes(&self.context.cluster, config) => {}
                () = elector.hold(lease) => {
                    // Dropping the controller cancels what it was about to write: from now on another replica may act.
                    tracing::warn!("the lease is lost; another replica may run the controller");
                }
            }
            if shutdown.is_cancelled() {
                tokio::time::timeout(GIVE_BACK_WITHIN, elector.release()).await.ok();
                return;
            }
        }
    }
}

/// A server that is shutting down does not wait for a store that is gone.
const GIVE_BACK_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);
