//! The price list.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// Records the price of a class from now on; does nothing if it is the current one. Returns whether it changed.
pub(crate) async fn set(
    conn: &mut PgConnection,
    class: &str,
    credits_per_hour: Decimal,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let current: Option<(Decimal,)> =
        sqlx::query_as("SELECT credits_per_hour FROM billing.prices WHERE class = $1 AND valid_to IS NULL FOR UPDATE")
            .bind(class)
            .fetch_optional(&mut *conn)
            .await?;
    if current.is_some_and(|(price,)| price == credits_per_hour) {
        return Ok(false);
    }
    sqlx::query("UPDATE billing.prices SET valid_to = $2 WHERE class = $1 AND valid_to IS NULL")
        .bind(class)
        .bind(now)
        .execute(&mut *conn)
        .await?;
    // The first known price holds for everything before it.
    sqlx::query(
        "INSERT INTO billing.prices (class, valid_from, credits_per_hour)
         VALUES ($1, CASE WHEN $4 THEN '-infinity'::timestamptz ELSE $3 END, $2)",
    )
    .bind(class)
    .bind(credits_per_hour)
    .bind(now)
    .bind(current.is_none())
    .execute(&mut *conn)
    .await?;
    Ok(true)
}

/// Gives records without a price the one that was valid when they started. Returns how many.
pub(crate) async fn fill(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE billing.usage_records AS record SET credits_per_hour = price.credits_per_hour FROM billing.prices AS price
         WHERE record.credits_per_hour IS NULL AND price.class = record.class
           AND price.valid_from <= record.started_at AND (price.valid_to IS NULL OR price.valid_to > record.started_at)",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
