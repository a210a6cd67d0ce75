//! `GET /api/v1/workspaces/{workspace}`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::Workspace;
use berth_authz::Authenticated;
use berth_http::{Path, Problem};

use super::{answer, load};
use crate::domain::authorize::ReadWorkspace;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::state::Api;

/// One workspace, by id or by the caller's name for it.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}", tag = "workspaces", operation_id = "show_workspace",
    params(
        ("workspace" = String, Path, description = "Its id or name"),
        ("If-None-Match" = Option<String>, Header, description = "ETag that is known; 304 when it is still that")
    ),
    responses(
        (status = 200, body = Workspace), (status = 304, description = "It is what you know"),
        (status = "default", response = crate::openapi::ProblemResponse)
    )
)]
pub(in crate::routes) async fn show(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Path(workspace): Path<String>,
) -> Result<Response, Problem> {
    let workspace = load::<ReadWorkspace>(&api, &principal, &caller, &workspace).await?;
    let tag = ETag::of_workspace(&workspace);
    if tag.known(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.header())]).into_response());
    }
    Ok(answer(StatusCode::OK, &workspace))
}
