//! Git credentials and the data keys that seal them.

use berth_api_types::git_credential::GitCredential;
use berth_ids::{CredentialId, UserId};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// A row without its secret.
#[derive(sqlx::FromRow)]
struct Row {
    id: CredentialId,
    host: String,
    username: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<Row> for GitCredential {
    fn from(row: Row) -> Self {
        let Row { id, host, username, created_at, updated_at, last_used_at } = row;
        Self { id, host, username, created_at, updated_at, last_used_at }
    }
}

/// A row with its sealed secret.
#[derive(sqlx::FromRow)]
pub(crate) struct Sealed {
    pub(crate) id: CredentialId,
    pub(crate) username: String,
    pub(crate) password: Vec<u8>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// The wrapped data key of a user.
pub(crate) async fn data_key(conn: &mut PgConnection, user: UserId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT wrapped FROM scm.data_keys WHERE user_id = $1").bind(user).fetch_optional(conn).await
}

/// Stores a user's wrapped data key; if there is one already it wins, and is returned.
pub(crate) async fn keep_data_key(
    conn: &mut PgConnection,
    user: UserId,
    wrapped: &[u8],
    now: DateTime<Utc>,
) -> Result<Vec<u8>, sqlx::Error> {
    // An update that changes nothing, so that RETURNING gives the existing row.
    sqlx::query_scalar(
        "INSERT INTO scm.data_keys (user_id, wrapped, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET user_id = EXCLUDED.user_id RETURNING wrapped",
    )
    .bind(user)
    .bind(wrapped)
    .bind(now)
    .fetch_one(conn)
    .await
}

/// Locks the row of a user's host, making it if it does not exist; the secret is still to be written. Returns whether it is new.
pub(crate) async fn claim(
    conn: &mut PgConnection,
    id: CredentialId,
    user: UserId,
    host: &str,
    username: &str,
    now: DateTime<Utc>,
) -> Result<(CredentialId, bool), sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO scm.git_credentials (id, user_id, host, username, password, created_at, updated_at)
         VALUES ($1, $2, $3, $4, '', $5, $5)
         ON CONFLICT ON CONSTRAINT git_credentials_user_host_key DO UPDATE SET username = EXCLUDED.username, updated_at = EXCLUDED.updated_at
         RETURNING id, id = $1",
    )
    .bind(id)
    .bind(user)
    .bind(host)
    .bind(username)
    .bind(now)
    .fetch_one(conn)
    .await
}

/// Writes the sealed secret of a row that was claimed in the same transaction.
pub(crate) async fn write_secret(
    conn: &mut PgConnection,
    id: CredentialId,
    password: &[u8],
) -> Result<GitCredential, sqlx::Error> {
    let row: Row = sqlx::query_as(
        "UPDATE scm.git_credentials SET password = $2 WHERE id = $1
         RETURNING id, host, username, created_at, updated_at, last_used_at",
    )
    .bind(id)
    .bind(password)
    .fetch_one(conn)
    .await?;
    Ok(row.into())
}

/// How many a user has.
pub(crate) async fn count(conn: &mut PgConnection, user: UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM scm.git_credentials WHERE user_id = $1").bind(user).fetch_one(conn).await
}

/// A user's credentials after a host, by host.
pub(crate) async fn list(
    conn: &mut PgConnection,
    user: UserId,
    after: &str,
    limit: i64,
) -> Result<Vec<GitCredential>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, host, username, created_at, updated_at, last_used_at FROM scm.git_credentials
         WHERE user_id = $1 AND host > $2 ORDER BY host LIMIT $3",
    )
    .bind(user)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(GitCredential::from).collect())
}

/// A user's credential for a host, sealed.
pub(crate) async fn find(conn: &mut PgConnection, user: UserId, host: &str) -> Result<Option<Sealed>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, username, password, last_used_at FROM scm.git_credentials WHERE user_id = $1 AND host = $2",
    )
    .bind(user)
    .bind(host)
    .fetch_optional(conn)
    .await
}

/// Notes that a credential was used, once an hour at most.
pub(crate) async fn used(conn: &mut PgConnection, id: CredentialId, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE scm.git_credentials SET last_used_at = $2
         WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)",
    )
    .bind(id)
    .bind(now)
    .bind(now - TimeDelta::hours(1))
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes a user's credential by its id; returns its host if there was one.
pub(crate) async fn remove_by_id(
    conn: &mut PgConnection,
    user: UserId,
    id: CredentialId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("DELETE FROM scm.git_credentials WHERE user_id = $1 AND id = $2 RETURNING host")
        .bind(user)
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// Removes a user's credential by its host.
pub(crate) async fn remove_by_host(
    conn: &mut PgConnection,
    user: UserId,
    host: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("DELETE FROM scm.git_credentials WHERE user_id = $1 AND host = $2 RETURNING host")
        .bind(user)
        .bind(host)
        .fetch_optional(conn)
        .await
}
