//! Tasks and services of `automations.yaml`: parsed strictly, started by triggers or by hand, followed until they end.
//!
//! The commands run in the workspace, under its supervisor; this service decides which and in what order, and records the results. It can be
//! killed at any moment: units go on running, and when it is back, what the database says is compared with what the supervisor says.

pub mod domain;

mod jobs;
mod routes;
mod store;
mod supervisors;
mod validate;

use std::sync::Arc;

use axum::Router;
use berth_clock::{Entropy, SharedClock};
use berth_db::outbox::Consumer;
use berth_http::InternalClient;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use supervisors::Nodes;
pub use validate::{Validation, validate};

use jobs::Jobs;
use jobs::changes::Changes;
use supervisors::Supervisors;

/// `[automations]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of the end of a run's output that are stored when it is over, at most 1 MiB.
    pub kept_log_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { kept_log_bytes: 256 * 1024 }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// More than a supervisor keeps.
    #[error("automations.kept_log_bytes is {0}: it must be at most 1048576")]
    KeptLogBytes(u64),
}

/// The services that automations calls.
#[derive(Clone, Debug)]
pub struct Dependencies {
    /// api: `POST /internal/authorize`.
    pub api: InternalClient,
    /// ws-manager: asked which node an instance is on, if there are several nodes.
    pub ws_manager: InternalClient,
    /// Node agents: supervisor streams.
    pub nodes: Nodes,
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct State {
    api: InternalClient,
    jobs: Jobs,
}

/// The service.
#[derive(Clone)]
pub struct Automations {
    state: State,
}

impl Automations {
    /// Builds the service; nobody is called yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        config: &Config,
        pool: PgPool,
        clock: SharedClock,
        entropy: Arc<dyn Entropy>,
        dependencies: Dependencies,
    ) -> Result<Self, ConfigError> {
        if config.kept_log_bytes > 1 << 20 {
            return Err(ConfigError::KeptLogBytes(config.kept_log_bytes));
        }
        let Dependencies { api, ws_manager, nodes } = dependencies;
        let supervisors = Supervisors { nodes, ws_manager };
        let jobs = Jobs {
            pool,
            clock,
            entropy,
            supervisors,
            kept_log_bytes: config.kept_log_bytes,
            changes: Changes::default(),
        };
        Ok(Self { state: State { api, jobs } })
    }

    /// Public routes: `/api/v1/workspaces/{workspace}/tasks`, `/services`, `/automations/reload`.
    pub fn router(&self) -> Router {
        routes::public(&self.state)
    }

    /// Nothing asks automations yet.
    pub fn internal_router(&self) -> Router {
        Router::new()
    }

    /// The public routes as OpenAPI.
    #[must_use]
    pub fn openapi() -> utoipa::openapi::OpenApi {
        routes::openapi()
    }

    /// Follows instances and their runs until `shutdown`. Runs go on without it; nothing new starts.
    pub async fn run_jobs(&self, shutdown: CancellationToken) {
        let jobs = &self.state.jobs;
        let consumer = Consumer::new(jobs.pool.clone(), "automations", &["instance", "workspace"]);
        let events = jobs::events::Events { clock: Arc::clone(&jobs.clock) };
        tokio::join!(consumer.run(events, shutdown.clone()), jobs.follow_changes(&shutdown), jobs.run(&shutdown));
    }
}
