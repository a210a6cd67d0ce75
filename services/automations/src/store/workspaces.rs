//! Workspaces, their instance, and the definitions of their file.

use std::collections::BTreeMap;

use berth_api_types::internal::InstanceLifecycle;
use berth_api_types::public::Phase;
use berth_ids::{InstanceId, WorkspaceId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{CHANNEL, RUNS_CHANNEL};
use crate::domain::definition::{Definition, Definitions};
use crate::domain::file::Finding;

/// What came of reading the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileStatus {
    pub(crate) state: &'static str,
    pub(crate) path: String,
    pub(crate) errors: Vec<Finding>,
    pub(crate) warnings: Vec<Finding>,
}

/// A row as the API needs it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) instance_id: InstanceId,
    pub(crate) running: bool,
    pub(crate) file_state: String,
    pub(crate) file_path: String,
    pub(crate) errors: Json<Vec<Finding>>,
    pub(crate) warnings: Json<Vec<Finding>>,
}

/// An instance with something to do.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Busy {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) instance_id: InstanceId,
    pub(crate) repository: String,
}

/// Records an event; returns whether it was news. Instance ids grow with time, so an event of an older instance is ignored. An end that api
/// decides by itself has the version of the last status, so of two events of one version the end counts.
pub(crate) async fn apply(
    conn: &mut PgConnection,
    event: &InstanceLifecycle,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let version = i64::try_from(event.version).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let done = sqlx::query(
        "INSERT INTO automations.workspaces AS known (workspace_id, instance_id, version, running, first_start, repository, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (workspace_id) DO UPDATE SET
           instance_id = EXCLUDED.instance_id, version = EXCLUDED.version, running = EXCLUDED.running,
           first_start = EXCLUDED.first_start, repository = EXCLUDED.repository, updated_at = EXCLUDED.updated_at
         WHERE (known.instance_id, known.version) < (EXCLUDED.instance_id, EXCLUDED.version)
           OR (known.instance_id, known.version) = (EXCLUDED.instance_id, EXCLUDED.version) AND known.running AND NOT EXCLUDED.running",
    )
    .bind(event.workspace_id)
    .bind(event.instance_id)
    .bind(version)
    .bind(event.phase == Phase::Running)
    .bind(event.first_start)
    .bind(&event.repository)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes a workspace that was deleted, with its definitions and runs.
pub(crate) async fn remove(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM automations.workspaces WHERE workspace_id = $1").bind(workspace).execute(conn).await?;
    Ok(())
}

/// Wakes the jobs when the transaction commits.
pub(crate) async fn wake(conn: &mut PgConnection, instance: InstanceId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(instance.to_string()).execute(conn).await?;
    Ok(())
}

/// Running instances whose file was not read, or that have runs that are not over.
pub(crate) async fn busy(conn: &mut PgConnection) -> Result<Vec<Busy>, sqlx::Error> {
    sqlx::query_as(
        "SELECT workspace_id, instance_id, repository FROM automations.workspaces AS workspace
         WHERE running AND (read_for IS DISTINCT FROM instance_id OR reload OR EXISTS (
           SELECT 1 FROM automations.executions AS execution
           WHERE execution.instance_id = workspace.instance_id AND execution.phase IN ('Pending', 'Starting', 'Running', 'Stopping')))",
    )
    .fetch_all(conn)
    .await
}

/// What to do with the file of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It was read, or the instance is over.
    Done,
    /// It was asked for; no trigger fires.
    Again,
    /// The instance has started, and its triggers fire.
    AtStart {
        /// The first of the workspace.
        first: bool,
    },
}

/// Whether the file of this instance is to be read. Nothing is locked: a lock is written to disk, and the worker asks at every turn.
pub(crate) async fn wants_read(conn: &mut PgConnection, busy: &Busy) -> Result<Read, sqlx::Error> {
    let row: Option<(bool, bool, bool)> = sqlx::query_as(
        "SELECT read_for IS DISTINCT FROM instance_id, reload, first_start FROM automations.workspaces
         WHERE workspace_id = $1 AND instance_id = $2 AND running",
    )
    .bind(busy.workspace_id)
    .bind(busy.instance_id)
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        Some((true, _, first)) => Read::AtStart { first },
        Some((false, true, _)) => Read::Again,
        _ => Read::Done,
    })
}

/// Whether the file of an instance that runs, says api, was read, or never will be because a newer one is known or it is over.
pub(crate) async fn is_read(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    instance: InstanceId,
) -> Result<bool, sqlx::Error> {
    let read: Option<bool> = sqlx::query_scalar(
        "SELECT NOT running OR read_for IS NOT DISTINCT FROM instance_id AND NOT reload FROM automations.workspaces
         WHERE workspace_id = $1 AND instance_id >= $2",
    )
    .bind(workspace)
    .bind(instance)
    .fetch_optional(conn)
    .await?;
    Ok(read.unwrap_or(false))
}

/// Records the outcome of reading the file and wakes those who wait for it. New definitions replace the old ones.
pub(crate) async fn was_read(
    conn: &mut PgConnection,
    busy: &Busy,
    status: &FileStatus,
    definitions: Option<&Definitions>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let workspace = busy.workspace_id;
    sqlx::query(
        "UPDATE automations.workspaces SET read_for = $2, reload = false, file_state = $3, file_path = $4, errors = $5, warnings = $6, updated_at = $7
         WHERE workspace_id = $1 RETURNING pg_notify($8, '')",
    )
    .bind(workspace)
    .bind(busy.instance_id)
    .bind(status.state)
    .bind(&status.path)
    .bind(Json(&status.errors))
    .bind(Json(&status.warnings))
    .bind(now)
    .bind(RUNS_CHANNEL)
    .execute(&mut *conn)
    .await?;
    let Some(definitions) = definitions else { return Ok(()) };
    let keys: Vec<&str> = definitions.0.keys().map(String::as_str).collect();
    sqlx::query("DELETE FROM automations.units WHERE workspace_id = $1 AND reference <> ALL($2)")
        .bind(workspace)
        .bind(&keys)
        .execute(&mut *conn)
        .await?;
    for (key, definition) in &definitions.0 {
        sqlx::query(
            "INSERT INTO automations.units (workspace_id, reference, kind, definition) VALUES ($1, $2, $3, $4)
             ON CONFLICT (workspace_id, reference) DO UPDATE SET kind = EXCLUDED.kind, definition = EXCLUDED.definition",
        )
        .bind(workspace)
        .bind(key)
        .bind(super::executions::kind_name(definition.kind))
        .bind(Json(definition))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// A workspace's row.
pub(crate) async fn find(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT instance_id, running, file_state, file_path, errors, warnings FROM automations.workspaces WHERE workspace_id = $1",
    )
    .bind(workspace)
    .fetch_optional(conn)
    .await
}

/// The same, locked: whoever starts runs holds the lock, so that two starts see each other's.
pub(crate) async fn lock(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT instance_id, running, file_state, file_path, errors, warnings FROM automations.workspaces WHERE workspace_id = $1 FOR UPDATE",
    )
    .bind(workspace)
    .fetch_optional(conn)
    .await
}

/// Requests that the file is read again.
pub(crate) async fn reload(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE automations.workspaces SET reload = true WHERE workspace_id = $1")
        .bind(workspace)
        .execute(conn)
        .await?;
    Ok(())
}

/// One of a workspace's definitions.
pub(crate) async fn definition(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reference: &str,
) -> Result<Option<Definition>, sqlx::Error> {
    let row: Option<Json<Definition>> =
        sqlx::query_scalar("SELECT definition FROM automations.units WHERE workspace_id = $1 AND reference = $2")
            .bind(workspace)
            .bind(reference)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|Json(definition)| definition))
}

/// A workspace's definitions.
pub(crate) async fn definitions(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<Definitions, sqlx::Error> {
    let rows: Vec<(String, Json<Definition>)> =
        sqlx::query_as("SELECT reference, definition FROM automations.units WHERE workspace_id = $1")
            .bind(workspace)
            .fetch_all(conn)
            .await?;
    Ok(Definitions(rows.into_iter().map(|(key, Json(definition))| (key, definition)).collect::<BTreeMap<_, _>>()))
}
