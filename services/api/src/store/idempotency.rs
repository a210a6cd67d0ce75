//! Answers that are kept so that a repeated request gets them again.
//!
//! Neither taking a key nor storing its answer waits for the disk (`synchronous_commit` is off for that statement alone): the write-ahead log
//! is written in order, so the commit of what the request makes takes its key to disk too. If the machine fails before the answer got there,
//! the repeated request finds what was made noted with the key.

use berth_ids::UserId;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;

/// An answer, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Location`.
    pub location: Option<String>,
    /// `ETag`.
    pub etag: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What the key means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Unused so far: go on; the key is now held.
    Fresh,
    /// The request was answered.
    Replay(Stored),
    /// The key was used for another request.
    Different,
    /// The same request is at work.
    InProgress,
    /// The same request was begun by a process that has died: go on; the key is now held. With what that process had made, if it got that
    /// far.
    Abandoned(Option<Uuid>),
}

type Row = (
    Vec<u8>,
    DateTime<Utc>,
    Option<Uuid>,
    Option<i16>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
);

/// Takes hold of a key until `until`.
///
/// # Errors
/// The database.
pub(crate) async fn begin(
    conn: &mut PgConnection,
    user: UserId,
    key: &str,
    request: &[u8; 32],
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Begin, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO api.idempotency (user_id, key, request, locked_until, created_at)
         SELECT $1, $2, $3, $4, $5 FROM set_config('synchronous_commit', 'off', true)
         ON CONFLICT (user_id, key) DO NOTHING",
    )
    .bind(user)
    .bind(key)
    .bind(request.as_slice())
    .bind(until)
    .bind(now)
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Begin::Fresh);
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT request, locked_until, resource_id, status, content_type, location, etag, body
         FROM api.idempotency WHERE user_id = $1 AND key = $2",
    )
    .bind(user)
    .bind(key)
    .fetch_optional(&mut *conn)
    .await?;
    // Gone between the two statements: the other request failed, and the key is free for the next try.
    let Some((stored, locked_until, resource, status, content_type, location, etag, body)) = row else {
        return Ok(Begin::InProgress);
    };
    if stored != request {
        return Ok(Begin::Different);
    }
    if let Some(status) = status {
        let status = u16::try_from(status).unwrap_or(500);
        return Ok(Begin::Replay(Stored { status, content_type, location, etag, body: body.unwrap_or_default() }));
    }
    let taken = sqlx::query(
        "UPDATE api.idempotency SET locked_until = $3
         WHERE user_id = $1 AND key = $2 AND status IS NULL AND locked_until = $4 AND locked_until < $5",
    )
    .bind(user)
    .bind(key)
    .bind(until)
    .bind(locked_until)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(if taken.rows_affected() == 1 { Begin::Abandoned(resource) } else { Begin::InProgress })
}

/// Notes what the request made, in the transaction that makes it.
///
/// # Errors
/// The database.
pub(crate) async fn note_resource(
    conn: &mut PgConnection,
    user: UserId,
    key: &str,
    id: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE api.idempotency SET resource_id = $3 WHERE user_id = $1 AND key = $2")
        .bind(user)
        .bind(key)
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps the answer.
///
/// # Errors
/// The database.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    user: UserId,
    key: &str,
    answer: &Stored,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE api.idempotency SET status = $3, content_type = $4, location = $5, etag = $6, body = $7
         FROM set_config('synchronous_commit', 'off', true) WHERE user_id = $1 AND key = $2",
    )
    .bind(user)
    .bind(key)
    .bind(i16::try_from(answer.status).unwrap_or(500))
    .bind(&answer.content_type)
    .bind(&answer.location)
    .bind(&answer.etag)
    .bind(&answer.body)
    .execute(conn)
    .await?;
    Ok(())
}

/// Frees the key: the request failed in a way that is worth retrying.
///
/// # Errors
/// The database.
pub(crate) async fn forget(conn: &mut PgConnection, user: UserId, key: &str) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM api.idempotency WHERE user_id = $1 AND key = $2 AND status IS NULL AND resource_id IS NULL",
    )
    .bind(user)
    .bind(key)
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes answers from before `before`.
///
/// # Errors
/// The database.
pub(crate) async fn prune(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM api.idempotency WHERE created_at < $1").bind(before).execute(conn).await?;
    Ok(done.rows_affected())
}
