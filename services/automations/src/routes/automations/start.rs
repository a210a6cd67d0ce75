//! `POST /api/v1/workspaces/{workspace}/{kinds}/{reference}/start` and the same for services.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::automations::Automation;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, ProblemBody, ProblemResponse};

use crate::domain::plan::plan;
use crate::domain::progress::to_run;
use crate::routes::access::Caller;
use crate::routes::of_kind::OfKind;
use crate::store::executions::{self, NewRun};
use crate::store::workspaces;

/// Start a {kind}, after everything that it depends on and that is not done yet. Does nothing if it is under way; if it is ending, it starts again once it has ended.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/{kinds}/{reference}/start", operation_id = "start_{kind}", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Its key in the automations file.")),
    responses(
        (status = 202, description = "It will start.", body = Automation),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace, or nothing of that kind and key in it.", content_type = "application/problem+json", body = ProblemBody),
        (status = 409, description = "The workspace does not run.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(OfKind { state, kind }): State<OfKind>,
    caller: Caller,
    Path((workspace, reference)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Automation>), Problem> {
    let authorized = caller.may_in_file(&state, &workspace, WorkspaceAction::Exec).await?;
    let id = authorized.workspace_id;
    let mut transaction = state.jobs.pool.begin().await.map_err(Problem::internal)?;
    let row = workspaces::lock(&mut transaction, id).await.map_err(Problem::internal)?;
    let definitions = workspaces::definitions(&mut transaction, id).await.map_err(Problem::internal)?;
    let known = definitions.0.get(&reference).is_some_and(|definition| definition.kind == kind);
    // Nobody knows what a file says that was never read.
    let unread = row.as_ref().is_none_or(|row| row.file_state == "unread");
    if !known && !unread {
        return Err(super::missing(kind, &reference));
    }
    let Some(row) = row.filter(|row| row.running && known) else {
        return Err(Problem::conflict(
            "workspace_not_running",
            format!("workspace {workspace} does not run: start it first"),
        ));
    };
    let runs = executions::of_instance(&mut transaction, id, row.instance_id).await.map_err(Problem::internal)?;
    let groups = plan(&definitions, [reference.as_str()]);
    let now = state.jobs.clock.now();
    let started = to_run(&groups, &BTreeSet::from([reference.as_str()]), &runs);
    if !started.is_empty() {
        super::audit(&state, &mut transaction, &authorized, kind, "start", &reference).await?;
    }
    for key in started {
        let Some(definition) = definitions.0.get(&key) else { continue };
        let new = NewRun {
            id: state.jobs.next_id(),
            workspace: id,
            instance: row.instance_id,
            reference: &key,
            definition,
            started_by: if key == reference { "manual" } else { "dependency" },
        };
        executions::create(&mut transaction, &new, now).await.map_err(Problem::internal)?;
    }
    workspaces::wake(&mut transaction, row.instance_id).await.map_err(Problem::internal)?;
    let automation = super::one(&mut transaction, id, kind, &reference).await?;
    transaction.commit().await.map_err(Problem::internal)?;
    Ok((StatusCode::ACCEPTED, Json(automation)))
}
