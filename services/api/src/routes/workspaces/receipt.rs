//! `GET /api/v1/workspaces/{workspace}/receipt`.

use axum::extract::State;
use berth_api_types::public::Receipt;
use berth_authz::Authenticated;
use berth_http::{Json, Path, Problem};

use super::load;
use crate::domain::authorize::ReadWorkspace;
use crate::http::caller::Caller;
use crate::state::Api;

/// How the workspace's newest start spent its time.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/receipt", tag = "workspaces", operation_id = "show_receipt",
    params(("workspace" = String, Path, description = "Its id or name")),
    responses((status = 200, body = Receipt), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn receipt(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Json<Receipt>, Problem> {
    let workspace = load::<ReadWorkspace>(&api, &principal, &caller, &workspace).await?;
    Ok(Json(workspace.receipt()))
}
