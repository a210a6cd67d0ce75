//! Postgres as every service uses it: the pool, the one linear history of migrations, the outbox.

pub mod outbox;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// The history of the schema, `/migrations` at the root of the repository.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Where the database is, and how much of it one process may use.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://…`
    pub url: String,
    /// Connections at most.
    pub max_connections: u32,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: String::new(), max_connections: 20 }
    }
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL cannot be read.
    #[error("the database URL cannot be read: write postgres://user@host/database")]
    Url(#[source] sqlx::Error),
    /// No connection.
    #[error("the database cannot be reached: is Postgres running, and the URL right?")]
    Connect(#[source] sqlx::Error),
    /// A migration failed; nothing of it was kept.
    #[error("the database's schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Planner settings. A connection keeps the plan of a statement, and a plan made while a table was nearly empty scans all of it: right for
/// ten rows, a hundred times too slow for ten thousand, and kept until Postgres analyses the table again, a minute later. All our statements
/// have an index to use, so they are planned as if the tables were large. (Where there is none, a table is still scanned; its price must then
/// not trigger the JIT compiler.)
const PLANS_FOR_GROWTH: &str = "SET enable_seqscan = off; SET jit = off";

/// Opens a pool; the first connection is made immediately.
///
/// # Errors
/// When the URL is wrong or the server does not answer.
pub async fn connect(config: &DatabaseConfig) -> Result<PgPool, DatabaseError> {
    let options = PgConnectOptions::from_str(&config.url).map_err(DatabaseError::Url)?.application_name("berth");
    PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(PLANS_FOR_GROWTH).execute(connection).await.map(drop) })
        })
        .connect_with(options)
        .await
        .map_err(DatabaseError::Connect)
}

/// Brings the schema up to date; a database that is newer than this program is refused.
///
/// # Errors
/// When a migration fails, or the history does not match.
pub async fn migrate(pool: &PgPool) -> Result<(), DatabaseError> {
    MIGRATIONS.run(pool).await.map_err(DatabaseError::Migrate)
}
