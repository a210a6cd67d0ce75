//! `GET /api/v1/workspaces/{workspace}/tasks/{reference}` and `/services/{reference}`.

use axum::extract::State;
use berth_api_types::automations::{Automation, AutomationKind};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, ProblemBody, ProblemResponse};

use crate::State as Service;
use crate::routes::access::Caller;

/// Show a task with its newest run.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/tasks/{reference}", operation_id = "show_task", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Key of the task.")),
    responses(
        (status = 200, description = "The task.", body = Automation),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace or task.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn task(
    State(state): State<Service>,
    caller: Caller,
    Path((workspace, reference)): Path<(String, String)>,
) -> Result<Json<Automation>, Problem> {
    show(&state, caller, &workspace, AutomationKind::Task, &reference).await
}

/// Show a service with its newest run.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/services/{reference}", operation_id = "show_service", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Key of the service.")),
    responses(
        (status = 200, description = "The service.", body = Automation),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace or service.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn service(
    State(state): State<Service>,
    caller: Caller,
    Path((workspace, reference)): Path<(String, String)>,
) -> Result<Json<Automation>, Problem> {
    show(&state, caller, &workspace, AutomationKind::Service, &reference).await
}

async fn show(
    state: &Service,
    caller: Caller,
    workspace: &str,
    kind: AutomationKind,
    reference: &str,
) -> Result<Json<Automation>, Problem> {
    let authorized = caller.may(state, workspace, WorkspaceAction::Read).await?;
    let mut conn = state.jobs.pool.acquire().await.map_err(Problem::internal)?;
    Ok(Json(super::one(&mut conn, authorized.workspace_id, kind, reference).await?))
}
