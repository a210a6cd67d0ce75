//! `POST /api/v1/workspaces/{workspace}/{kinds}/{reference}/stop` and the same for services.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::automations::Automation;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, ProblemBody, ProblemResponse};

use crate::routes::access::Caller;
use crate::routes::of_kind::OfKind;
use crate::store::{executions, workspaces};

/// Stop a {kind}; does nothing if it is not running.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/{kinds}/{reference}/stop", operation_id = "stop_{kind}", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Its key in the automations file.")),
    responses(
        (status = 202, description = "It will stop.", body = Automation),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace, or nothing of that kind and key in it.", content_type = "application/problem+json", body = ProblemBody),
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
    let automation = super::one(&mut transaction, id, kind, &reference).await?;
    let row = workspaces::find(&mut transaction, id).await.map_err(Problem::internal)?;
    if let Some(row) = row.filter(|row| row.running) {
        let asked =
            executions::request_stop(&mut transaction, row.instance_id, &reference).await.map_err(Problem::internal)?;
        if asked {
            super::audit(&state, &mut transaction, &authorized, kind, "stop", &reference).await?;
            workspaces::wake(&mut transaction, row.instance_id).await.map_err(Problem::internal)?;
        }
    }
    transaction.commit().await.map_err(Problem::internal)?;
    Ok((StatusCode::ACCEPTED, Json(automation)))
}
