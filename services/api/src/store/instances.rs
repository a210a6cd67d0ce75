//! Runs of workspaces.

use berth_api_types::public::{Resources, Step};
use berth_authz::Authorized;
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::StoreError;
use crate::domain::authorize::StartWorkspace;
use crate::domain::instance::{Belongings, Instance, phase_name};
use crate::domain::workspace::Workspace;

/// Stores a new run and makes it its workspace's newest.
///
/// # Errors
/// [`super::Conflict::Running`] when another run of it is not over, or the database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    right: &Authorized<Workspace, StartWorkspace>,
    instance: &Instance,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "WITH run AS (
             INSERT INTO api.instances (id, workspace_id, first_start, phase, request_steps, requested_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
         )
         UPDATE api.workspaces SET instance_id = $1 WHERE id = $2",
    )
    .bind(instance.id)
    .bind(right.id)
    .bind(instance.first_start)
    .bind(phase_name(instance.phase))
    .bind(Json(&instance.request_steps))
    .bind(instance.requested_at)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether no run of the workspace was ever ready.
///
/// # Errors
/// The database.
pub(crate) async fn never_ran(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<bool, StoreError> {
    let ran: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM api.instances WHERE workspace_id = $1 AND started_at IS NOT NULL)",
    )
    .bind(workspace)
    .fetch_one(conn)
    .await?;
    Ok(!ran)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: InstanceId,
    workspace_id: WorkspaceId,
    first_start: bool,
    phase: String,
    reason: String,
    failed: bool,
    version: i64,
    node: Option<String>,
    image_digest: Option<String>,
    resources: Option<Json<Resources>>,
    request_steps: Json<Vec<Step>>,
    steps: Json<Vec<Step>>,
    requested_at: DateTime<Utc>,
    total_us: Option<i64>,
    started_at: Option<DateTime<Utc>>,
    stopped_at: Option<DateTime<Utc>>,
    last_activity: Option<DateTime<Utc>>,
    timeout_warning: Option<String>,
    accepted_at: Option<DateTime<Utc>>,
    stop_requested_at: Option<DateTime<Utc>>,
    stop_reason: String,
    workspace_name: String,
    owner_id: UserId,
    organization_id: OrganizationId,
    repository: String,
    class: String,
    deleted: bool,
}

impl TryFrom<Row> for (Instance, Belongings) {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let instance = Instance {
            id: row.id,
            workspace_id: row.workspace_id,
            first_start: row.first_start,
            phase: super::workspaces::phase(&row.phase, row.id)?,
            reason: row.reason,
            failed: row.failed,
            version: row.version,
            node: row.node,
            image_digest: row.image_digest,
            resources: row.resources.map(|resources| resources.0),
            request_steps: row.request_steps.0,
            steps: row.steps.0,
            requested_at: row.requested_at,
            total_us: row.total_us,
            started_at: row.started_at,
            stopped_at: row.stopped_at,
            last_activity: row.last_activity,
            timeout_warning: row.timeout_warning,
            accepted_at: row.accepted_at,
            stop_requested_at: row.stop_requested_at,
            stop_reason: row.stop_reason,
        };
        let of = Belongings {
            workspace_name: row.workspace_name,
            owner_id: row.owner_id,
            organization_id: row.organization_id,
            repository: row.repository,
            class: row.class,
            deleted: row.deleted,
        };
        Ok((instance, of))
    }
}

/// The run with what it belongs to, locked until the caller's transaction ends.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    id: InstanceId,
) -> Result<Option<(Instance, Belongings)>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT i.id, i.workspace_id, i.first_start, i.phase, i.reason, i.failed, i.version, i.node, i.image_digest, i.resources, i.request_steps,
             i.steps, i.requested_at, i.total_us, i.started_at, i.stopped_at, i.last_activity, i.timeout_warning, i.accepted_at,
             i.stop_requested_at, i.stop_reason, w.name AS workspace_name, w.owner_id, w.organization_id, w.repository_key AS repository, w.class,
             w.deleted_at IS NOT NULL AS deleted
         FROM api.instances i JOIN api.workspaces w ON w.id = i.workspace_id WHERE i.id = $1 FOR UPDATE OF i",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Writes what a status changed: compare-and-swap on the version, and never on a run that is over.
///
/// # Errors
/// The database.
pub(crate) async fn save(conn: &mut PgConnection, instance: &Instance, seen: i64) -> Result<bool, StoreError> {
    let saved = sqlx::query(
        "UPDATE api.instances SET phase = $3, reason = $4, failed = $5, version = $6, node = $7, image_digest = $8, steps = $9,
             total_us = $10, started_at = $11, stopped_at = $12, last_activity = $13, timeout_warning = $14,
             accepted_at = coalesce(accepted_at, $15), resources = $16
         WHERE id = $1 AND version = $2 AND phase <> 'Stopped'",
    )
    .bind(instance.id)
    .bind(seen)
    .bind(phase_name(instance.phase))
    .bind(&instance.reason)
    .bind(instance.failed)
    .bind(instance.version)
    .bind(&instance.node)
    .bind(&instance.image_digest)
    .bind(Json(&instance.steps))
    .bind(instance.total_us)
    .bind(instance.started_at)
    .bind(instance.stopped_at)
    .bind(instance.last_activity)
    .bind(&instance.timeout_warning)
    .bind(instance.accepted_at)
    .bind(instance.resources.as_ref().map(Json))
    .execute(conn)
    .await?;
    Ok(saved.rows_affected() == 1)
}

/// ws-manager accepted the start; `steps` is the complete list of those measured here.
///
/// # Errors
/// The database.
pub(crate) async fn accepted(
    conn: &mut PgConnection,
    id: InstanceId,
    steps: Option<&[Step]>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE api.instances SET accepted_at = coalesce(accepted_at, $2), request_steps = coalesce($3, request_steps) WHERE id = $1",
    )
    .bind(id)
    .bind(now)
    .bind(steps.map(Json))
    .execute(conn)
    .await?;
    Ok(())
}

/// Somebody asked to stop it; the first reason stays.
///
/// # Errors
/// The database.
pub(crate) async fn request_stop(
    conn: &mut PgConnection,
    id: InstanceId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE api.instances SET stop_requested_at = $2, stop_reason = $3
         WHERE id = $1 AND stop_requested_at IS NULL AND phase <> 'Stopped'",
    )
    .bind(id)
    .bind(now)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Why it is to stop.
///
/// # Errors
/// The database.
pub(crate) async fn stop_reason(conn: &mut PgConnection, id: InstanceId) -> Result<String, StoreError> {
    let reason: Option<String> =
        sqlx::query_scalar("SELECT stop_reason FROM api.instances WHERE id = $1").bind(id).fetch_optional(conn).await?;
    Ok(reason.unwrap_or_default())
}

/// ws-manager took the stop.
///
/// # Errors
/// The database.
pub(crate) async fn stop_accepted(
    conn: &mut PgConnection,
    id: InstanceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE api.instances SET stop_accepted_at = $2 WHERE id = $1 AND stop_accepted_at IS NULL")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// ws-manager was told that the run's final status is stored.
///
/// # Errors
/// The database.
pub(crate) async fn acknowledged(
    conn: &mut PgConnection,
    id: InstanceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE api.instances SET acknowledged_at = $2 WHERE id = $1 AND acknowledged_at IS NULL")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Starts from before `before` that ws-manager has not accepted yet.
///
/// # Errors
/// The database.
pub(crate) async fn unaccepted(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<Vec<InstanceId>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT id FROM api.instances
         WHERE phase <> 'Stopped' AND accepted_at IS NULL AND stop_requested_at IS NULL AND created_at <= $1 ORDER BY id LIMIT 500",
    )
    .bind(before)
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Stops asked for before `before` that ws-manager has not accepted yet.
///
/// # Errors
/// The database.
pub(crate) async fn unsent_stops(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> Result<Vec<InstanceId>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT id FROM api.instances
         WHERE phase <> 'Stopped' AND stop_requested_at <= $1 AND stop_accepted_at IS NULL ORDER BY id LIMIT 500",
    )
    .bind(before)
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Runs that ws-manager accepted before `before` and that are not over.
///
/// # Errors
/// The database.
pub(crate) async fn accepted_and_live(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> Result<Vec<InstanceId>, StoreError> {
    let ids = sqlx::query_scalar("SELECT id FROM api.instances WHERE phase <> 'Stopped' AND accepted_at < $1")
        .bind(before)
        .fetch_all(conn)
        .await?;
    Ok(ids)
}
