//! Objects in Postgres: one row each, one statement a commit.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::watch;

use super::backend::{Batch, Row, StoreError};

/// The DDL of the schema `kube`, the same text as in the migrations folder.
pub const MIGRATION: &str = include_str!("../../../../migrations/20261123000200_kube.sql");

/// "berthkub" in ASCII: the key of the advisory lock.
const LOCK: i64 = 0x6265_7274_686b_7562;

/// One round trip and one fsync. The first part is the fence: if the stored revision is not the one this batch builds on, nothing is written.
const COMMIT: &str = "\
WITH fence AS (
    UPDATE kube.revision SET last = $2 WHERE last = $1 RETURNING last
), removed AS (
    DELETE FROM kube.objects o USING unnest($3::text[], $4::text[], $5::text[]) AS d(resource, namespace, name), fence
    WHERE o.resource = d.resource AND o.namespace = d.namespace AND o.name = d.name
), stored AS (
    INSERT INTO kube.objects (resource, namespace, name, resource_version, body)
    SELECT p.resource, p.namespace, p.name, p.version, p.body
    FROM unnest($6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[]) AS p(resource, namespace, name, version, body), fence
    ON CONFLICT (resource, namespace, name)
    DO UPDATE SET resource_version = excluded.resource_version, body = excluded.body
)
SELECT count(*) FROM fence";

#[derive(Debug)]
pub(crate) struct Postgres {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Postgres {
    pub(crate) async fn open(options: PgConnectOptions) -> Result<(Self, u64, Vec<Row>), StoreError> {
        let options = options.application_name("berth-kube").disable_statement_logging();
        let mut connection = connect(&options).await?;
        let last: i64 = sqlx::query_scalar("SELECT last FROM kube.revision")
            .fetch_one(&mut connection)
            .await
            .map_err(StoreError::Load)?;
        let rows = sqlx::query("SELECT resource, namespace, name, resource_version, body FROM kube.objects")
            .try_map(|row: PgRow| {
                let version: i64 = row.try_get(3)?;
                Ok(Row {
                    resource: row.try_get(0)?,
                    namespace: row.try_get(1)?,
                    name: row.try_get(2)?,
                    revision: u64::try_from(version).map_err(|error| sqlx::Error::Decode(error.into()))?,
                    body: row.try_get::<String, _>(4)?.into_bytes(),
                })
            })
            .fetch_all(&mut connection)
            .await
            .map_err(StoreError::Load)?;
        let last = u64::try_from(last).unwrap_or_default();
        Ok((Self { options, connection: Some(connection) }, last, rows))
    }

    /// Commits, reconnecting for as long as the database is away: whether a commit whose answer was lost has been kept can only be found out
    /// by asking again, and until it is known no other batch may be built. Gives up when the server stops.
    ///
    /// It was kept if and only if the stored revision is the batch's own.
    pub(crate) async fn commit(&mut self, batch: Batch, stop: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        let base = signed(batch.base)?;
        let last = signed(batch.last)?;
        let rows = Columns::of(&batch)?;
        let mut wait = Duration::from_millis(20);
        let mut in_doubt = false;
        loop {
            let failure = match self.try_commit(&rows, base, last, in_doubt).await {
                Ok(()) => return Ok(()),
                Err(error @ (StoreError::Fenced { .. } | StoreError::Commit(sqlx::Error::Encode(_)))) => {
                    return Err(error);
                }
                Err(StoreError::Commit(error @ sqlx::Error::Database(_))) if !is_shutdown(&error) => {
                    return Err(StoreError::Commit(error));
                }
                Err(error) => error,
            };
            in_doubt |= matches!(failure, StoreError::Commit(_));
            self.connection = None;
            tracing::warn!(error = %failure, "the object store is not reachable; trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(1)),
                () = super::stopped(stop) => return Err(failure),
            }
        }
    }

    async fn try_commit(&mut self, rows: &Columns<'_>, base: i64, last: i64, in_doubt: bool) -> Result<(), StoreError> {
        let connection = match self.connection.as_mut() {
            Some(connection) => connection,
            None => self.connection.insert(connect(&self.options).await?),
        };
        if rows.run(connection, base, last).await.map_err(StoreError::Commit)? {
            return Ok(());
        }
        let found: i64 = sqlx::query_scalar("SELECT last FROM kube.revision")
            .fetch_one(connection)
            .await
            .map_err(StoreError::Commit)?;
        if in_doubt && found == last {
            return Ok(());
        }
        Err(StoreError::Fenced { expected: u64::try_from(base).unwrap_or_default(), found })
    }

    pub(crate) async fn close(self) {
        let Some(mut connection) = self.connection else { return };
        // A closed connection's lock is released a moment later, when its backend has noticed; the next server may be faster.
        let unlocked = sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut connection).await;
        if let Err(error) = unlocked {
            tracing::debug!(%error, "the object store's lock was not released by hand; the end of its connection does it");
        }
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "the object store's connection did not close cleanly");
        }
    }
}

/// Class 57: the server was told to stop; the next connection may succeed.
fn is_shutdown(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code.starts_with("57"))
}

fn signed(revision: u64) -> Result<i64, StoreError> {
    i64::try_from(revision).map_err(|error| StoreError::Commit(sqlx::Error::Encode(error.into())))
}

/// Connects and takes the lock, waiting a moment for it: the backend of a killed server holds it until it has noticed.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut connection = options.connect().await.map_err(StoreError::Connect)?;
    sqlx::query("SET lock_timeout = '2s'").execute(&mut connection).await.map_err(StoreError::Connect)?;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut connection)
        .await
        .map_err(|error| if is_lock_timeout(&error) { StoreError::Locked } else { StoreError::Connect(error) })?;
    // Commits may take as long as they need: what they wait for may be the last commit of a connection that broke.
    sqlx::query("SET lock_timeout = 0").execute(&mut connection).await.map_err(StoreError::Connect)?;
    Ok(connection)
}

/// `lock_not_available`.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

/// A batch as the arrays that the statement unnests.
#[derive(Default)]
struct Columns<'a> {
    deleted: [Vec<&'a str>; 3],
    put: [Vec<&'a str>; 3],
    versions: Vec<i64>,
    bodies: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a Batch) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for address in &batch.deletes {
            columns.deleted[0].push(&address.collection);
            columns.deleted[1].push(&address.key.namespace);
            columns.deleted[2].push(&address.key.name);
        }
        for (address, object) in &batch.puts {
            columns.put[0].push(&address.collection);
            columns.put[1].push(&address.key.namespace);
            columns.put[2].push(&address.key.name);
            columns.versions.push(signed(object.revision)?);
            let body = std::str::from_utf8(&object.bytes)
                .map_err(|error| StoreError::Commit(sqlx::Error::Encode(error.into())))?;
            columns.bodies.push(body);
        }
        Ok(columns)
    }

    /// Whether the fence let the batch through.
    async fn run(&self, connection: &mut PgConnection, base: i64, last: i64) -> Result<bool, sqlx::Error> {
        let passed: i64 = sqlx::query_scalar(COMMIT)
            .bind(base)
            .bind(last)
            .bind(&self.deleted[0])
            .bind(&self.deleted[1])
            .bind(&self.deleted[2])
            .bind(&self.put[0])
            .bind(&self.put[1])
            .bind(&self.put[2])
            .bind(&self.versions)
            .bind(&self.bodies)
            .fetch_one(connection)
            .await?;
        Ok(passed == 1)
    }
}
