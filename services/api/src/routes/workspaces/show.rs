//! `GET /api/v1/workspaces/{workspace}`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::Workspace;
use berth_authz::{Authenticated, Authorized, Denied};
use berth_http::{Path, Problem};
use berth_ids::WorkspaceId;

use super::{load, unknown};
use crate::domain::authorize::{ReadWorkspace, WorkspaceScope};
use crate::http::caller::Caller;
use crate::http::headers::IfNoneMatch;
use crate::state::Api;
use crate::views::View;

/// One workspace, by id or by the caller's name for it.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}", tag = "workspaces", operation_id = "show_workspace",
    params(
        ("workspace" = String, Path, description = "Its id or name"),
        IfNoneMatch
    ),
    responses(
        (status = 200, body = Workspace), (status = 304, description = "It is what you know"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn show(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Path(workspace): Path<String>,
) -> Result<Response, Problem> {
    let view = match workspace.parse::<WorkspaceId>() {
        Ok(id) => by_id(&api, id).await?.ok_or_else(|| unknown(&workspace))?,
        // A name is looked for where the caller may use it; the rest is as with an id.
        Err(_) => {
            let id = load::<ReadWorkspace>(&api, &principal, &caller, &workspace).await?.id;
            by_id(&api, id).await?.ok_or_else(|| unknown(&workspace))?
        }
    };
    Authorized::<WorkspaceScope, ReadWorkspace>::check(&principal, view.scope).map_err(|denied| match denied {
        Denied::Hidden { .. } => unknown(&workspace),
        Denied::Forbidden { .. } => denied.into(),
    })?;
    if view.etag.known(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, view.etag.header())]).into_response());
    }
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([json, (header::ETAG, view.etag.header())], view.json.clone()).into_response())
}

async fn by_id(api: &Api, id: WorkspaceId) -> Result<Option<Arc<View>>, Problem> {
    let wanted = api.stamps().of(id).await?.map(|stamp| (id, stamp));
    let wanted = wanted.as_slice();
    let known = api.views().get(wanted).pop().flatten();
    match known {
        Some(view) => Ok(Some(view)),
        None => {
            let mut conn = api.connection().await?;
            Ok(api.views().load(&mut conn, wanted).await?.pop())
        }
    }
}
