//! Runs of tasks and services.

use std::collections::BTreeMap;

use berth_api_types::automations::{AutomationExecution, AutomationKind, AutomationPhase};
use berth_ids::{ExecutionId, InstanceId, WorkspaceId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{CorruptRow, RUNS_CHANNEL};
use crate::domain::definition::Definition;
use crate::domain::progress::Run;

/// Runs of a key that are kept.
const KEPT_RUNS: i64 = 20;

pub(crate) const fn kind_name(kind: AutomationKind) -> &'static str {
    match kind {
        AutomationKind::Task => "task",
        AutomationKind::Service => "service",
    }
}

const fn phase_name(phase: AutomationPhase) -> &'static str {
    match phase {
        // A run always has one of the others; the table's constraint would say so.
        AutomationPhase::Idle => "Idle",
        AutomationPhase::Pending => "Pending",
        AutomationPhase::Starting => "Starting",
        AutomationPhase::Running => "Running",
        AutomationPhase::Stopping => "Stopping",
        AutomationPhase::Stopped => "Stopped",
        AutomationPhase::Succeeded => "Succeeded",
        AutomationPhase::Failed => "Failed",
    }
}

fn phase(name: &str, row: ExecutionId) -> Result<AutomationPhase, CorruptRow> {
    Ok(match name {
        "Pending" => AutomationPhase::Pending,
        "Starting" => AutomationPhase::Starting,
        "Running" => AutomationPhase::Running,
        "Stopping" => AutomationPhase::Stopping,
        "Stopped" => AutomationPhase::Stopped,
        "Succeeded" => AutomationPhase::Succeeded,
        "Failed" => AutomationPhase::Failed,
        other => {
            return Err(CorruptRow {
                table: "automations.executions",
                column: "phase",
                row: row.to_string(),
                value: other.to_owned(),
            });
        }
    })
}

/// A run that is wanted.
#[derive(Debug)]
pub(crate) struct NewRun<'a> {
    pub(crate) id: ExecutionId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) instance: InstanceId,
    pub(crate) reference: &'a str,
    pub(crate) definition: &'a Definition,
    /// A trigger, `manual`, or `dependency`.
    pub(crate) started_by: &'a str,
}

/// Makes a run, unless one of the same key is under way in the instance; if that one is ending, another will follow it.
pub(crate) async fn create(conn: &mut PgConnection, new: &NewRun<'_>, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO automations.executions AS e (id, workspace_id, instance_id, reference, kind, definition, started_by, phase, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'Pending', $8)
         ON CONFLICT (instance_id, reference) WHERE phase IN ('Pending', 'Starting', 'Running', 'Stopping') DO UPDATE
           SET restart = jsonb_build_object('started_by', EXCLUDED.started_by, 'definition', EXCLUDED.definition)
           WHERE e.stop_requested OR e.phase = 'Stopping'",
    )
    .bind(new.id)
    .bind(new.workspace)
    .bind(new.instance)
    .bind(new.reference)
    .bind(kind_name(new.definition.kind))
    .bind(Json(new.definition))
    .bind(new.started_by)
    .bind(now)
    .execute(&mut *conn)
    .await?;
    // Old runs, with their stored output, are removed when a new one is made.
    sqlx::query(
        "DELETE FROM automations.executions WHERE workspace_id = $1 AND reference = $2
           AND phase NOT IN ('Pending', 'Starting', 'Running', 'Stopping')
           AND id NOT IN (SELECT id FROM automations.executions WHERE workspace_id = $1 AND reference = $2 ORDER BY id DESC LIMIT $3)",
    )
    .bind(new.workspace)
    .bind(new.reference)
    .bind(KEPT_RUNS)
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct RunRow {
    id: ExecutionId,
    reference: String,
    definition: Json<Definition>,
    phase: String,
    stop_requested: bool,
    restarts: bool,
    runs_before: Option<i64>,
    run: Option<i64>,
}

/// The newest run of each key in an instance.
pub(crate) async fn of_instance(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    instance: InstanceId,
) -> Result<Vec<Run>, sqlx::Error> {
    // The index is that of the workspace.
    let rows: Vec<RunRow> = sqlx::query_as(
        "SELECT DISTINCT ON (reference) id, reference, definition, phase, stop_requested, restart IS NOT NULL AS restarts, runs_before, run
         FROM automations.executions WHERE workspace_id = $1 AND instance_id = $2 ORDER BY reference, id DESC",
    )
    .bind(workspace)
    .bind(instance)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Run {
                phase: phase(&row.phase, row.id)?,
                id: row.id,
                reference: row.reference,
                definition: row.definition.0,
                stop_requested: row.stop_requested,
                restarts: row.restarts,
                runs_before: row.runs_before,
                run: row.run,
            })
        })
        .collect()
}

/// Records, before the supervisor is asked, how often the unit of each of these runs has run.
pub(crate) async fn starting(conn: &mut PgConnection, runs: &[(ExecutionId, i64)]) -> Result<(), sqlx::Error> {
    let (ids, runs_before): (Vec<ExecutionId>, Vec<i64>) = runs.iter().copied().unzip();
    sqlx::query(
        "UPDATE automations.executions AS run SET phase = 'Starting', runs_before = known.runs_before
         FROM unnest($1::uuid[], $2::bigint[]) AS known (id, runs_before) WHERE run.id = known.id AND phase = 'Pending'",
    )
    .bind(ids)
    .bind(runs_before)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a unit's status says about a run.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) phase: AutomationPhase,
    pub(crate) reason: String,
    pub(crate) run: Option<i64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) log: Option<Vec<u8>>,
}

impl Progress {
    /// An end that no unit tells.
    pub(crate) fn ended(phase: AutomationPhase, reason: impl Into<String>) -> Self {
        Self { phase, reason: reason.into(), run: None, exit_code: None, outputs: BTreeMap::new(), log: None }
    }
}

/// Records the progress of a run and wakes those who wait for it. An end is final; the run that is to follow it, if any, gets the id `next`.
pub(crate) async fn advance(
    conn: &mut PgConnection,
    id: ExecutionId,
    progress: &Progress,
    next: ExecutionId,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH advanced AS (UPDATE automations.executions SET
           phase = $2, reason = $3, run = COALESCE($4, run), exit_code = COALESCE($5, exit_code), outputs = $6,
           log = CASE WHEN octet_length($7) >= COALESCE(octet_length(log), 0) THEN $7 ELSE log END,
           started_at = CASE WHEN $4::bigint IS NULL THEN started_at ELSE COALESCE(started_at, $8) END,
           ready_at = CASE WHEN kind = 'service' AND $2 = 'Running' THEN COALESCE(ready_at, $8) ELSE ready_at END,
           finished_at = CASE WHEN $9 THEN $8 END
         WHERE id = $1 AND phase IN ('Pending', 'Starting', 'Running', 'Stopping') RETURNING *, pg_notify($11, ''))
         INSERT INTO automations.executions (id, workspace_id, instance_id, reference, kind, definition, started_by, phase, created_at)
         SELECT $10, workspace_id, instance_id, reference, kind, restart -> 'definition', restart ->> 'started_by', 'Pending', $8
         FROM advanced WHERE $9 AND restart IS NOT NULL",
    )
    .bind(id)
    .bind(phase_name(progress.phase))
    .bind(&progress.reason)
    .bind(progress.run)
    .bind(progress.exit_code)
    .bind(Json(&progress.outputs))
    .bind(&progress.log)
    .bind(now)
    .bind(progress.phase.is_final())
    .bind(next)
    .bind(RUNS_CHANNEL)
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores the end of a run's output, even if the run has ended meanwhile. A stored output is never replaced by a shorter one: a connection to a
/// workspace that is stopping may deliver nothing.
pub(crate) async fn keep_log(conn: &mut PgConnection, id: ExecutionId, log: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE automations.executions SET log = $2 WHERE id = $1 AND octet_length($2) > COALESCE(octet_length(log), -1)",
    )
    .bind(id)
    .bind(log)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends all runs of an instance that is over.
pub(crate) async fn end_all(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    but: Option<InstanceId>,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE automations.executions SET phase = 'Stopped', reason = $3, finished_at = $4
         WHERE workspace_id = $1 AND instance_id IS DISTINCT FROM $2 AND phase IN ('Pending', 'Starting', 'Running', 'Stopping')
         RETURNING pg_notify($5, '')",
    )
    .bind(workspace)
    .bind(but)
    .bind(reason)
    .bind(now)
    .bind(RUNS_CHANNEL)
    .execute(conn)
    .await?;
    Ok(())
}

/// Requests that the run under way of a key is stopped and that none follows it; returns whether there is one.
pub(crate) async fn request_stop(
    conn: &mut PgConnection,
    instance: InstanceId,
    reference: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE automations.executions SET stop_requested = true, restart = NULL
         WHERE instance_id = $1 AND reference = $2 AND phase IN ('Pending', 'Starting', 'Running', 'Stopping')",
    )
    .bind(instance)
    .bind(reference)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The newest run of a key, as the API shows it.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    pub(crate) phase: AutomationPhase,
    pub(crate) reason: String,
    pub(crate) execution: AutomationExecution,
}

#[derive(sqlx::FromRow)]
struct NewestRow {
    id: ExecutionId,
    instance_id: InstanceId,
    reference: String,
    started_by: String,
    phase: String,
    reason: String,
    restarts: bool,
    exit_code: Option<i32>,
    outputs: Json<BTreeMap<String, String>>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ready_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// The newest run of each key of a workspace, or of one key.
pub(crate) async fn newest(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reference: Option<&str>,
) -> Result<BTreeMap<String, Newest>, sqlx::Error> {
    let rows: Vec<NewestRow> = sqlx::query_as(
        "SELECT DISTINCT ON (reference) id, instance_id, reference, started_by, phase, reason, restart IS NOT NULL AS restarts, exit_code, outputs, created_at, started_at, ready_at, finished_at
         FROM automations.executions WHERE workspace_id = $1 AND ($2::text IS NULL OR reference = $2) ORDER BY reference, id DESC",
    )
    .bind(workspace)
    .bind(reference)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let phase = phase(&row.phase, row.id)?;
            let restarts = row.restarts && !phase.is_final();
            let newest = Newest {
                phase,
                reason: if restarts { "it starts again when it has stopped".to_owned() } else { row.reason },
                execution: AutomationExecution {
                    id: row.id,
                    instance_id: row.instance_id,
                    started_by: row.started_by,
                    created_at: row.created_at,
                    started_at: row.started_at,
                    ready_at: row.ready_at,
                    finished_at: row.finished_at,
                    exit_code: row.exit_code,
                    outputs: row.outputs.0,
                },
            };
            Ok((row.reference, newest))
        })
        .collect()
}

/// The stored output of the newest run of a key: whether the run is over, the instance, and the output.
pub(crate) async fn log(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reference: &str,
) -> Result<Option<(InstanceId, AutomationPhase, Option<Vec<u8>>)>, sqlx::Error> {
    let row: Option<(ExecutionId, InstanceId, String, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT id, instance_id, phase, log FROM automations.executions WHERE workspace_id = $1 AND reference = $2 ORDER BY id DESC LIMIT 1",
    )
    .bind(workspace)
    .bind(reference)
    .fetch_optional(conn)
    .await?;
    row.map(|(id, instance, name, log)| Ok((instance, phase(&name, id)?, log))).transpose()
}
