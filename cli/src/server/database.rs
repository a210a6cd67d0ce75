//! The database of a server: the private Postgres, which is stopped with it, or an external one.

use anyhow::Context as _;
use berth_embedded_pg::{Postgres, PostgresError};
use sqlx::PgPool;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use crate::home::Home;

/// An open database. Dropped without [`close`](Self::close), it leaves the private Postgres to the next server, as a kill does.
pub(super) struct Database {
    pub(super) pool: PgPool,
    /// The private one, watched over; empty with an external one.
    postgres: JoinSet<Result<(), PostgresError>>,
    stop: CancellationToken,
}

impl Database {
    /// Starts or adopts the private Postgres, unless another is configured; connects, and migrates.
    pub(super) async fn open(home: &Home, config: &Config) -> anyhow::Result<Self> {
        let (mut postgres, stop) = (JoinSet::new(), CancellationToken::new());
        let url = if config.database.url.is_empty() {
            let private = Postgres::start(berth_embedded_pg::Config {
                data: home.path().join("postgres"),
                socket: home.run().join("postgres"),
                binaries: config.database.binaries.clone(),
                user: config.database.user.clone(),
            })
            .await?;
            let (url, stop) = (private.url(), stop.clone());
            postgres.spawn(async move { private.run(stop).await });
            url
        } else {
            config.database.url.clone()
        };
        match connect(url, config.database.max_connections).await {
            Ok(pool) => Ok(Self { pool, postgres, stop }),
            Err(error) => {
                stop_postgres(postgres, &stop).await?;
                Err(error)
            }
        }
    }

    /// Resolves when the private Postgres is watched over no more.
    pub(super) async fn died(&mut self) -> anyhow::Result<()> {
        match self.postgres.join_next().await {
            Some(ended) => Ok(ended??),
            None => std::future::pending().await,
        }
    }

    /// Ends the connections, and stops the private Postgres.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.pool.close().await;
        stop_postgres(self.postgres, &self.stop).await
    }
}

async fn connect(url: String, max_connections: u32) -> anyhow::Result<PgPool> {
    let pool = berth_db::connect(&berth_db::DatabaseConfig { url, max_connections }).await?;
    berth_db::migrate(&pool).await?;
    Ok(pool)
}

async fn stop_postgres(
    mut postgres: JoinSet<Result<(), PostgresError>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    stop.cancel();
    while let Some(ended) = postgres.join_next().await {
        let ended: Result<_, JoinError> = ended;
        ended?.context("the database could not be stopped")?;
    }
    Ok(())
}
