//! `POST /api/v1/workspaces/{workspace}/automations/reload`.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Path, Problem, ProblemBody, ProblemResponse};

use crate::State as Service;
use crate::routes::access::{self, Caller};
use crate::store::workspaces;

/// Read the automations file of a running workspace again. No trigger fires, and what runs continues unchanged.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/automations/reload", operation_id = "reload_automations", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name.")),
    responses(
        (status = 202, description = "It will be read; the list of tasks has the outcome."),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace.", content_type = "application/problem+json", body = ProblemBody),
        (status = 409, description = "The workspace does not run.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<StatusCode, Problem> {
    let authorized = caller.may(&state, &workspace, WorkspaceAction::Exec).await?;
    let mut transaction = state.jobs.pool.begin().await.map_err(Problem::internal)?;
    let row = workspaces::lock(&mut transaction, authorized.workspace_id).await.map_err(Problem::internal)?;
    let Some(row) = row.filter(|row| row.running) else {
        return Err(Problem::conflict(
            "workspace_not_running",
            format!("workspace {workspace} does not run: start it first"),
        ));
    };
    access::audit(&state, &mut transaction, &authorized, "automations.reload", "workspace", &authorized.workspace_name)
        .await?;
    workspaces::reload(&mut transaction, authorized.workspace_id).await.map_err(Problem::internal)?;
    workspaces::wake(&mut transaction, row.instance_id).await.map_err(Problem::internal)?;
    transaction.commit().await.map_err(Problem::internal)?;
    Ok(StatusCode::ACCEPTED)
}
