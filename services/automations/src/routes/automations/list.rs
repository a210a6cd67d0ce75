//! `GET /api/v1/workspaces/{workspace}/tasks` and `/services`.

use axum::extract::State;
use berth_api_types::automations::{AutomationList, AutomationsFileStatus, FileFinding};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, ProblemBody, ProblemResponse};

use crate::domain::file::Finding;
use crate::routes::access::Caller;
use crate::routes::of_kind::OfKind;
use crate::store::workspaces;

/// List the {kinds} of a workspace, each with its newest run, and what the automations file said.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/{kinds}", operation_id = "list_{kinds}", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name.")),
    responses(
        (status = 200, description = "All of them, by key.", body = AutomationList),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(OfKind { state, kind }): State<OfKind>,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Json<AutomationList>, Problem> {
    let authorized = caller.may_in_file(&state, &workspace, WorkspaceAction::Read).await?;
    let mut conn = state.jobs.pool.acquire().await.map_err(Problem::internal)?;
    let row = workspaces::find(&mut conn, authorized.workspace_id).await.map_err(Problem::internal)?;
    let items = super::all(&mut conn, authorized.workspace_id, kind).await.map_err(Problem::internal)?;
    let findings = |findings: Vec<Finding>| {
        findings.into_iter().map(|Finding { line, column, message }| FileFinding { line, column, message }).collect()
    };
    let file = match row {
        Some(row) => AutomationsFileStatus {
            state: row.file_state,
            path: row.file_path,
            errors: findings(row.errors.0),
            warnings: findings(row.warnings.0),
        },
        None => {
            AutomationsFileStatus { state: "unread".to_owned(), path: String::new(), errors: vec![], warnings: vec![] }
        }
    };
    Ok(Json(AutomationList { items: items.into_values().collect(), file }))
}
