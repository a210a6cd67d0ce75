//! The one-time set-up link.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::secret::SecretHash;

/// The first administrator was made.
///
/// # Errors
/// The database.
pub(crate) async fn is_done(conn: &mut PgConnection) -> Result<bool, StoreError> {
    let done =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api.setup WHERE used_at IS NOT NULL)").fetch_one(conn).await?;
    Ok(done)
}

/// Replaces the link; false: the set-up is over.
///
/// # Errors
/// The database.
pub(crate) async fn replace(
    conn: &mut PgConnection,
    hash: &SecretHash,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "INSERT INTO api.setup (hash, created_at) VALUES ($1, $2)
         ON CONFLICT (only_row) DO UPDATE SET hash = EXCLUDED.hash, created_at = EXCLUDED.created_at
         WHERE api.setup.used_at IS NULL",
    )
    .bind(hash.as_slice())
    .bind(now)
    .execute(conn)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// What the link was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It was the right one; it is used up with the caller's transaction.
    Accepted,
    /// It is not the one.
    Wrong,
    /// Set-up is over.
    Over,
}

/// Uses the link up, in the transaction that makes the administrator. Of two at the same moment one waits for the other, and is then told
/// that the set-up is over.
///
/// # Errors
/// The database.
pub(crate) async fn consume(conn: &mut PgConnection, hash: &SecretHash, now: DateTime<Utc>) -> Result<Use, StoreError> {
    let row: Option<(Vec<u8>, Option<DateTime<Utc>>)> =
        sqlx::query_as("SELECT hash, used_at FROM api.setup FOR UPDATE").fetch_optional(&mut *conn).await?;
    let Some((stored, used_at)) = row else { return Ok(Use::Wrong) };
    if used_at.is_some() {
        return Ok(Use::Over);
    }
    if !bool::from(subtle::ConstantTimeEq::ct_eq(stored.as_slice(), hash.as_slice())) {
        return Ok(Use::Wrong);
    }
    sqlx::query("UPDATE api.setup SET used_at = $1").bind(now).execute(conn).await?;
    Ok(Use::Accepted)
}
