//! Git hosts: context URLs, refs, git credentials.
//!
//! [`domain::context`] understands what a user pastes without a call; [`remote`] asks the host for its refs natively
//! (git's smart HTTP protocol) through the guarded outbound client; [`domain::resolve`] puts the two together.

pub mod config;
pub mod domain;
pub mod remote;

mod resolver;
mod routes;
mod secrets;
mod store;
mod vault;

use std::sync::Arc;

use axum::Router;
use berth_api_types::internal::AuditEvent;
use berth_authz::{Authenticator, Principal};
use berth_clock::{Entropy, SharedClock};
use berth_http::Problem;
use sqlx::{PgConnection, PgPool};
use url::Url;

pub use config::{Config, ConfigError};
pub use secrets::MasterKeyError;

use remote::{Remote, Together};
use resolver::Resolver;
use secrets::Key;
use vault::Vault;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct State {
    pool: PgPool,
    clock: SharedClock,
    authenticator: Arc<dyn Authenticator>,
    resolver: Arc<Resolver>,
    vault: Vault,
}

impl State {
    /// `host:port` of a clone URL if it is on the list of private hosts: the workspace must be able to reach it too.
    fn allowed_private_host(&self, clone_url: &str) -> Option<String> {
        let url = Url::parse(clone_url).ok()?;
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        self.resolver.remote.guard().allows(host, port).then(|| format!("{host}:{port}"))
    }

    /// Reports a change to the audit log, in the transaction that makes it.
    async fn audit(
        &self,
        conn: &mut PgConnection,
        principal: &Principal,
        action: &str,
        host: &str,
    ) -> Result<(), Problem> {
        let event = AuditEvent {
            at: self.clock.now(),
            actor_id: principal.user_id,
            actor: principal.email.clone(),
            credential: principal.credential.to_string(),
            action: action.to_owned(),
            target_type: "git_credential".to_owned(),
            target_id: None,
            target: host.to_owned(),
        };
        berth_db::outbox::publish(conn, "audit", &principal.user_id.to_string(), &event)
            .await
            .map_err(Problem::internal)
    }
}

/// The service.
#[derive(Clone)]
pub struct Scm {
    state: State,
}

impl Scm {
    /// Builds the service; the master key's file is made when it does not exist.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        config: &Config,
        pool: PgPool,
        clock: SharedClock,
        entropy: Arc<dyn Entropy>,
        authenticator: Arc<dyn Authenticator>,
    ) -> Result<Self, ConfigError> {
        let remote = Arc::new(Remote::new(config.guard()?, config.timeout()?));
        let resolver = Resolver {
            hosts: config.known_hosts()?,
            refs: Together::new(Arc::clone(&remote)),
            remote,
            bitbucket_api: config.bitbucket_api.trim_end_matches('/').to_owned(),
        };
        let master = Key::load_or_create(&config.master_key_file, entropy.as_ref())?;
        let vault = Vault::new(master, Arc::clone(&clock), entropy);
        Ok(Self { state: State { pool, clock, authenticator, resolver: Arc::new(resolver), vault } })
    }

    /// Public routes, `/api/v1/git-credentials`.
    pub fn router(&self) -> Router {
        routes::public(&self.state)
    }

    /// Internal routes: `POST /internal/contexts/resolve`, `POST /internal/private-hosts`, `POST /internal/git-credentials/lookup`.
    pub fn internal_router(&self) -> Router {
        routes::internal(&self.state)
    }

    /// The public routes as OpenAPI.
    #[must_use]
    pub fn openapi() -> utoipa::openapi::OpenApi {
        routes::openapi()
    }
}
