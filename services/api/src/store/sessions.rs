//! Browser sessions.

use berth_api_types::public::Session;
use berth_ids::{SessionId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::secret::SecretHash;
use crate::http::caller::Caller;

/// Begins a session.
///
/// # Errors
/// The database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    session: &Session,
    hash: &SecretHash,
    caller: &Caller,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api.sessions (id, user_id, hash, created_at, last_seen_at, expires_at, address, user_agent)
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
    )
    .bind(session.id)
    .bind(session.user_id)
    .bind(hash.as_slice())
    .bind(session.created_at)
    .bind(session.expires_at)
    .bind(&caller.address)
    .bind(&caller.user_agent)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that it is in use.
///
/// # Errors
/// The database.
pub(crate) async fn touch(conn: &mut PgConnection, id: SessionId, now: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query("UPDATE api.sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    id: SessionId,
    user_id: UserId,
    created_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    address: Option<String>,
    user_agent: Option<String>,
}

/// The user's sessions, the newest first.
///
/// # Errors
/// The database.
pub(crate) async fn list(
    conn: &mut PgConnection,
    user: UserId,
    current: Option<SessionId>,
    now: DateTime<Utc>,
) -> Result<Vec<Session>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, user_id, created_at, last_seen_at, expires_at, address, user_agent FROM api.sessions
         WHERE user_id = $1 AND expires_at > $2 ORDER BY id DESC LIMIT 200",
    )
    .bind(user)
    .bind(now)
    .fetch_all(conn)
    .await?;
    let session = |row: Row| Session {
        id: row.id,
        user_id: row.user_id,
        current: current == Some(row.id),
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        expires_at: row.expires_at,
        address: row.address,
        user_agent: row.user_agent,
    };
    Ok(rows.into_iter().map(session).collect())
}

/// Ends one session of the user; false: they have no such session.
///
/// # Errors
/// The database.
pub(crate) async fn delete(conn: &mut PgConnection, user: UserId, id: SessionId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM api.sessions WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sessions of the user but one.
///
/// # Errors
/// The database.
pub(crate) async fn delete_others(
    conn: &mut PgConnection,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM api.sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2")
        .bind(user)
        .bind(keep)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// Removes what is over.
///
/// # Errors
/// The database.
pub(crate) async fn prune(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    idle_before: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM api.sessions WHERE expires_at <= $1 OR last_seen_at <= $2")
        .bind(now)
        .bind(idle_before)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}
