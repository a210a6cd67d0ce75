//! Usage and what it costs: one record per run of a workspace, derived from the events of its instance, never counted separately.
//!
//! An event that comes twice changes nothing, an event that was missed comes later: what is stored follows from what happened.

mod domain;
mod jobs;
mod routes;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use berth_authz::Authenticator;
use berth_clock::{Entropy, SharedClock};
use berth_db::outbox::Consumer;
use berth_http::InternalClient;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// `[billing]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seconds between two readings of the classes' prices, 1 to 3600.
    pub price_refresh_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { price_refresh_seconds: 60 }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The interval of the price list.
    #[error("billing.price_refresh_seconds is {0}: it must be from 1 to 3600")]
    PriceRefresh(u64),
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct State {
    pool: PgPool,
    clock: SharedClock,
    authenticator: Arc<dyn Authenticator>,
}

/// The service.
#[derive(Clone)]
pub struct Billing {
    state: State,
    entropy: Arc<dyn Entropy>,
    ws_manager: InternalClient,
    price_refresh: Duration,
}

impl Billing {
    /// Builds the service. `ws_manager` is asked for the classes and their prices.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        config: &Config,
        pool: PgPool,
        clock: SharedClock,
        entropy: Arc<dyn Entropy>,
        authenticator: Arc<dyn Authenticator>,
        ws_manager: InternalClient,
    ) -> Result<Self, ConfigError> {
        let price_refresh = match config.price_refresh_seconds {
            seconds @ 1..=3600 => Duration::from_secs(seconds),
            seconds => return Err(ConfigError::PriceRefresh(seconds)),
        };
        Ok(Self { state: State { pool, clock, authenticator }, entropy, ws_manager, price_refresh })
    }

    /// Public routes: `GET /api/v1/usage`, `GET /api/v1/usage.csv`.
    pub fn router(&self) -> Router {
        routes::public(&self.state)
    }

    /// Nothing asks billing yet.
    pub fn internal_router(&self) -> Router {
        Router::new()
    }

    /// The public routes as OpenAPI.
    #[must_use]
    pub fn openapi() -> utoipa::openapi::OpenApi {
        routes::openapi()
    }

    /// Derives records from events and keeps the price list, until `shutdown`.
    pub async fn run_jobs(&self, shutdown: CancellationToken) {
        let consumer = Consumer::new(self.state.pool.clone(), "billing", &["instance"]);
        let records =
            jobs::records::Records { clock: Arc::clone(&self.state.clock), entropy: Arc::clone(&self.entropy) };
        let prices = jobs::prices::run(
            &self.state.pool,
            &self.ws_manager,
            &self.state.clock,
            self.price_refresh,
            shutdown.clone(),
        );
        tokio::join!(consumer.run(records, shutdown), prices);
    }
}
