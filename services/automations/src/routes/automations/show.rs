//! `GET /api/v1/workspaces/{workspace}/{kinds}/{reference}` and `/services/{reference}`.

use axum::extract::State;
use berth_api_types::automations::Automation;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, ProblemBody, ProblemResponse};

use crate::routes::access::Caller;
use crate::routes::of_kind::OfKind;

/// Show a {kind} with its newest run.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/{kinds}/{reference}", operation_id = "show_{kind}", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Its key in the automations file.")),
    responses(
        (status = 200, description = "What the file says of it, and its newest run.", body = Automation),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace, or nothing of that kind and key in it.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(OfKind { state, kind }): State<OfKind>,
    caller: Caller,
    Path((workspace, reference)): Path<(String, String)>,
) -> Result<Json<Automation>, Problem> {
    let authorized = caller.may_in_file(&state, &workspace, WorkspaceAction::Read).await?;
    let mut conn = state.jobs.pool.acquire().await.map_err(Problem::internal)?;
    Ok(Json(super::one(&mut conn, authorized.workspace_id, kind, &reference).await?))
}
