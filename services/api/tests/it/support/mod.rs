//! A service to test, and clients of it.

pub(crate) mod client;
pub(crate) mod scm;
pub(crate) mod ws_manager;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use berth_api::{Api, Config};
use berth_clock::{ManualClock, SharedClock, SystemClock, SystemEntropy};
use berth_http::InternalClient;
use berth_ids::{OrganizationId, SessionId, UserId};
use berth_testkit::TestDatabase;
use chrono::{TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

pub(crate) use client::{Answer, Client};
pub(crate) use ws_manager::WsManager;

/// The service with everything around it.
pub(crate) struct Service {
    pub api: Api,
    pub router: Router,
    pub internal: Router,
    pub ws_manager: WsManager,
    pub clock: SharedClock,
    pub database: TestDatabase,
    jobs: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.jobs.cancel();
    }
}

/// Somebody with an account, signed in.
#[derive(Clone)]
pub(crate) struct Person {
    pub id: UserId,
    pub organization: OrganizationId,
    pub email: String,
    pub client: Client,
}

pub(crate) const ORIGIN: &str = "https://berth.example.com";

pub(crate) fn config() -> Config {
    Config { public_url: ORIGIN.into(), wait_seconds: 20, logins_per_minute: 1000, ..Config::default() }
}

/// The service with its jobs at work.
pub(crate) async fn service() -> Service {
    let service = service_with(config(), SystemClock::shared()).await;
    service.run_jobs();
    service
}

/// The service on a clock that stands still, without jobs.
pub(crate) async fn service_at_rest() -> (Service, Arc<ManualClock>) {
    #[expect(clippy::disallowed_methods, reason = "where the test's own clock begins")]
    let clock = Arc::new(ManualClock::new(Utc::now()));
    (service_with(config(), clock.clone()).await, clock)
}

pub(crate) async fn service_with(config: Config, clock: SharedClock) -> Service {
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let ws_manager = WsManager::default();
    let api = Api::new(
        config,
        database.pool.clone(),
        clock.clone(),
        Arc::new(SystemEntropy),
        InternalClient::in_process("scm", scm::router()),
        InternalClient::in_process("ws-manager", ws_manager.router()),
    );
    let (router, internal) = (api.router(), api.internal_router());
    Service { api, router, internal, ws_manager, clock, database, jobs: CancellationToken::new() }
}

impl Service {
    pub(crate) fn run_jobs(&self) {
        let (api, token) = (self.api.clone(), self.jobs.clone());
        tokio::spawn(async move { api.run_jobs(token).await });
    }

    /// The same database behind a new process: nothing in memory is left.
    pub(crate) fn restarted(&self, config: Config) -> Api {
        Api::new(
            config,
            self.database.pool.clone(),
            self.clock.clone(),
            Arc::new(SystemEntropy),
            InternalClient::in_process("scm", scm::router()),
            InternalClient::in_process("ws-manager", self.ws_manager.router()),
        )
    }

    /// Nobody.
    pub(crate) fn nobody(&self) -> Client {
        Client::new(self.router.clone())
    }

    /// Root at the unix socket.
    pub(crate) fn root(&self) -> Client {
        Client::new(self.router.clone()).peer(0)
    }

    /// An account made past the API (hashing a password takes long in a debug build), with a token made through it.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let id = UserId::new(self.clock.as_ref(), &SystemEntropy);
        let organization = OrganizationId::new(self.clock.as_ref(), &SystemEntropy);
        let email = format!("{name}@example.com");
        let now = self.clock.now();
        sqlx::query(
            "WITH u AS (INSERT INTO api.users (id, name, email, git_email, created_at, updated_at) VALUES ($1, $2, $3, $3, $4, $4)),
             o AS (INSERT INTO api.organizations (id, name, personal_of, created_at, updated_at) VALUES ($5, $2, $1, $4, $4))
             INSERT INTO api.members (organization_id, user_id, role, created_at) VALUES ($5, $1, 'owner', $4)",
        )
        .bind(id)
        .bind(name)
        .bind(&email)
        .bind(now)
        .bind(organization)
        .execute(&self.database.pool)
        .await
        .unwrap();
        let browser = self.browser(id).await;
        let answer = browser.post("/api/v1/tokens", serde_json::json!({ "name": "test" })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.text("secret");
        Person { id, organization, email, client: self.nobody().bearer(&token) }
    }

    /// A browser that the user is signed in with.
    pub(crate) async fn browser(&self, user: UserId) -> Client {
        let secret = UserId::new(self.clock.as_ref(), &SystemEntropy).to_string();
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let now = self.clock.now();
        sqlx::query(
            "INSERT INTO api.sessions (id, user_id, hash, created_at, last_seen_at, expires_at) VALUES ($1, $2, $3, $4, $4, $5)",
        )
        .bind(SessionId::new(self.clock.as_ref(), &SystemEntropy))
        .bind(user)
        .bind(hash.as_slice())
        .bind(now)
        .bind(now + TimeDelta::days(7))
        .execute(&self.database.pool)
        .await
        .unwrap();
        self.nobody().header("cookie", &format!("__Host-berth_session={secret}")).header("origin", ORIGIN)
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.database.pool).await.unwrap()
    }
}

/// Waits until a condition holds; asked again at short intervals since the condition lies outside this process's events.
pub(crate) async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
