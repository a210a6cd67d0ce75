//! Usage records, as events make them.

use berth_api_types::internal::InstanceLifecycle;
use berth_ids::UsageRecordId;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::domain::record::Interval;

/// Records an event. A replay changes nothing; a known end stays.
pub(crate) async fn apply(
    conn: &mut PgConnection,
    id: UsageRecordId,
    event: &InstanceLifecycle,
    interval: Interval,
) -> Result<(), sqlx::Error> {
    let version = i64::try_from(event.version).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO billing.usage_records AS record
           (id, instance_id, workspace_id, workspace_name, owner_id, organization_id, repository, class, credits_per_hour, started_at, stopped_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
           (SELECT credits_per_hour FROM billing.prices WHERE class = $8 AND valid_from <= $9 AND (valid_to IS NULL OR valid_to > $9)),
           $9, $10, $11)
         ON CONFLICT ON CONSTRAINT usage_records_instance_key DO UPDATE SET
           stopped_at = COALESCE(record.stopped_at,
             -- GREATEST passes over nulls: without the case, an event without an end would end the record at its start.
             CASE WHEN EXCLUDED.stopped_at IS NOT NULL THEN GREATEST(EXCLUDED.stopped_at, record.started_at) END),
           version = GREATEST(record.version, EXCLUDED.version)
         WHERE record.stopped_at IS NULL OR record.version < EXCLUDED.version",
    )
    .bind(id)
    .bind(event.instance_id)
    .bind(event.workspace_id)
    .bind(&event.workspace_name)
    .bind(event.owner_id)
    .bind(event.organization_id)
    .bind(&event.repository)
    .bind(&event.class)
    .bind(interval.started_at)
    .bind(interval.stopped_at)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps an event that could not be parsed.
pub(crate) async fn reject(
    conn: &mut PgConnection,
    event_id: i64,
    payload: &serde_json::Value,
    error: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO billing.rejected_events (event_id, payload, error, rejected_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (event_id) DO NOTHING",
    )
    .bind(event_id)
    .bind(payload)
    .bind(error)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}
