//! The service, assembled.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use berth_api_types::internal::Class;
use berth_authz::Authenticator;
use berth_clock::{Clock, Entropy, SharedClock};
use berth_http::{InternalClient, Problem};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::authenticate::{Cache, LocalAuthenticator};
use crate::changes::Changes;
use crate::config::Config;
use crate::domain::password::Passwords;
use crate::domain::secret;
use crate::layers::idempotency::Finished;
use crate::layers::limits::Limits;
use crate::lists::Lists;
use crate::stamps::Stamps;
use crate::store::{self, StoreError};
use crate::views::Views;

/// How long ws-manager's classes are believed.
const CLASSES_FOR: Duration = Duration::from_secs(10);

/// The api service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    pool: PgPool,
    clock: SharedClock,
    entropy: Arc<dyn Entropy>,
    scm: InternalClient,
    ws_manager: InternalClient,
    changes: Changes,
    cache: Cache,
    passwords: Passwords,
    limits: Limits,
    views: Arc<Views>,
    stamps: Stamps,
    lists: Lists,
    finished: Finished,
    classes: Mutex<Option<Classes>>,
    nudge: Notify,
    started_at: DateTime<Utc>,
}

/// The classes, and when they were fetched.
#[derive(Debug)]
struct Classes {
    at: DateTime<Utc>,
    classes: Arc<Vec<Class>>,
}

/// The set-up link could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the set-up link could not be made: the database refused")]
pub struct SetupLinkError(#[source] StoreError);

impl Api {
    /// The service on a migrated database.
    #[must_use]
    pub fn new(
        config: Config,
        pool: PgPool,
        clock: SharedClock,
        entropy: Arc<dyn Entropy>,
        scm: InternalClient,
        ws_manager: InternalClient,
    ) -> Self {
        let changes = Changes::new(entropy.as_ref());
        let passwords = Passwords::new(config.password_hashers, Arc::clone(&entropy));
        let started_at = clock.now();
        let views = Arc::<Views>::default();
        Self {
            inner: Arc::new(Inner {
                config,
                stamps: Stamps::new(pool.clone()),
                lists: Lists::new(pool.clone(), Arc::clone(&views)),
                pool,
                clock,
                entropy,
                scm,
                ws_manager,
                changes,
                cache: Cache::default(),
                passwords,
                limits: Limits::default(),
                views,
                finished: Finished::default(),
                classes: Mutex::new(None),
                nudge: Notify::new(),
                started_at,
            }),
        }
    }

    /// The public API, with `/openapi.json`.
    pub fn router(&self) -> Router {
        crate::routes::public(self, Vec::new())
    }

    /// The public API, with other services' documents merged into `/openapi.json`. Their routes go through [`Api::protect`].
    pub fn router_with(&self, others: Vec<OpenApi>) -> Router {
        crate::routes::public(self, others)
    }

    /// What other services may ask: `/internal/...`.
    pub fn internal_router(&self) -> Router {
        crate::routes::internal(self)
    }

    /// Gives another service's public routes the same authentication, rate limits and idempotency keys as this service's own.
    pub fn protect(&self, router: Router) -> Router {
        crate::layers::protect(self, router)
    }

    /// Authentication against this service's own tables, for other services' routers in the same process.
    #[must_use]
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(LocalAuthenticator::new(self.clone()))
    }

    /// Runs the background jobs until `shutdown`. If it returns earlier, a job has died; the process should end.
    pub async fn run_jobs(&self, shutdown: CancellationToken) {
        crate::jobs::run(self, shutdown).await;
    }

    /// The link that makes the first administrator; `None` once there is one. Each call invalidates the earlier links.
    ///
    /// # Errors
    /// The database.
    pub async fn setup_link(&self) -> Result<Option<String>, SetupLinkError> {
        let secret = self.new_setup_secret().await.map_err(SetupLinkError)?;
        // In the fragment, so that it is in no log of a server or proxy and in no `Referer`.
        Ok(secret.map(|secret| format!("{}/setup#{}", self.config().public_url, secret.expose_secret())))
    }

    async fn new_setup_secret(&self) -> Result<Option<SecretString>, StoreError> {
        let mut conn = self.connection().await?;
        let secret = secret::new_opaque(self.entropy());
        let hash = secret::hash(secret.expose_secret());
        let replaced = store::setup::replace(&mut conn, &hash, self.now()).await?;
        Ok(replaced.then_some(secret))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        self.inner.entropy.as_ref()
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    pub(crate) fn started_at(&self) -> DateTime<Utc> {
        self.inner.started_at
    }

    pub(crate) fn scm(&self) -> &InternalClient {
        &self.inner.scm
    }

    pub(crate) fn ws_manager(&self) -> &InternalClient {
        &self.inner.ws_manager
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.inner.changes
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn finished(&self) -> &Finished {
        &self.inner.finished
    }

    /// Wakes the job that completes what was left between two services.
    pub(crate) fn nudge(&self) -> &Notify {
        &self.inner.nudge
    }

    pub(crate) async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.inner.pool.acquire().await?)
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        Ok(self.inner.pool.begin().await?)
    }

    /// Writes an audit row in the transaction of the change that it is about.
    pub(crate) async fn audit(
        &self,
        conn: &mut sqlx::PgConnection,
        record: store::audit::Record<'_>,
    ) -> Result<(), StoreError> {
        store::audit::write(conn, self.audit_entry(record)).await
    }

    /// A row of the audit log, for a statement that writes it together with its change.
    pub(crate) fn audit_entry<'a>(&self, record: store::audit::Record<'a>) -> store::audit::Entry<'a> {
        store::audit::Entry::new(self.clock(), self.entropy(), record)
    }

    pub(crate) fn views(&self) -> &Views {
        &self.inner.views
    }

    pub(crate) fn lists(&self) -> &Lists {
        &self.inner.lists
    }

    pub(crate) fn stamps(&self) -> &Stamps {
        &self.inner.stamps
    }

    /// The installation's workspace classes, as ws-manager has them.
    pub(crate) async fn classes(&self) -> Result<Arc<Vec<Class>>, Problem> {
        let mut cached = self.inner.classes.lock().await;
        let now = self.now();
        if let Some(known) = cached.as_ref()
            && (now - known.at).to_std().is_ok_and(|age| age < CLASSES_FOR)
        {
            return Ok(Arc::clone(&known.classes));
        }
        let classes: Vec<Class> = self.ws_manager().get("/internal/classes").await?;
        let classes = Arc::new(classes);
        *cached = Some(Classes { at: now, classes: Arc::clone(&classes) });
        Ok(classes)
    }
}

/// Commits, as a store error.
pub(crate) async fn commit(transaction: Transaction<'static, Postgres>) -> Result<(), StoreError> {
    transaction.commit().await?;
    Ok(())
}
