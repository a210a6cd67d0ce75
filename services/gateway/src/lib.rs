//! The gateway: exec, terminals, ports, files and logs of workspaces.
//!
//! api authorises every request and every connection, and again from time to time while it is open; a connection ends when the workspace
//! stops. Bytes go in frames of `berth-supervisor-protocol` to the node agent, which connects them with the workspace's supervisor.

mod access;
mod activity;
mod config;
mod instances;
mod relay;
mod routes;
mod websocket;

use std::collections::HashMap;
use std::sync::Arc;

use berth_http::InternalClient;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};

/// How to reach the node agent of a node.
#[derive(Clone, Debug)]
pub enum Nodes {
    /// There is one, whatever it is called.
    Single(InternalClient),
    /// By the node's name.
    ByName(HashMap<String, InternalClient>),
}

impl Nodes {
    fn client(&self, node: Option<&str>) -> Option<&InternalClient> {
        match self {
            Self::Single(client) => Some(client),
            Self::ByName(clients) => clients.get(node?),
        }
    }
}

/// The services the gateway calls.
#[derive(Clone, Debug)]
pub struct Dependencies {
    /// api: `POST /internal/authorize`.
    pub api: InternalClient,
    /// ws-manager: the watch of instances, and marks of activity.
    pub ws_manager: InternalClient,
    /// Node agents: supervisor streams and logs.
    pub nodes: Nodes,
}

#[derive(Debug)]
struct Inner {
    dependencies: Dependencies,
    origins: Vec<url::Origin>,
    config: Config,
    instances: instances::SharedInstances,
    activity: activity::Activity,
    at_the_edge: bool,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Inner>);

impl Gateway {
    /// Builds the service beside api, whose layers are around it; nobody is called yet.
    pub fn new(config: Config, dependencies: Dependencies) -> Result<Self, ConfigError> {
        Self::build(config, dependencies, false)
    }

    /// The same as the first service that a request meets: it has api count what does not come by way of api.
    pub fn at_the_edge(config: Config, dependencies: Dependencies) -> Result<Self, ConfigError> {
        Self::build(config, dependencies, true)
    }

    fn build(config: Config, dependencies: Dependencies, at_the_edge: bool) -> Result<Self, ConfigError> {
        config.validate()?;
        let activity = activity::Activity::new(dependencies.ws_manager.clone());
        let inner = Inner {
            origins: config.origins()?,
            dependencies,
            config,
            instances: Arc::default(),
            activity,
            at_the_edge,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// `/api/v1/workspaces/{id}/exec`, `/terminals`, `/ports`, `/files`, `/logs`.
    pub fn router(&self) -> axum::Router {
        routes::router(self.clone())
    }

    /// The routes as OpenAPI.
    #[must_use]
    pub fn openapi() -> utoipa::openapi::OpenApi {
        routes::openapi()
    }

    /// Follows the instances until `shutdown`. Without it no instance is ever Running here.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.0.instances.follow(&self.0.dependencies.ws_manager) => {}
            () = shutdown.cancelled() => {}
        }
    }
}
