//! `DELETE /api/v1/workspaces/{workspace}`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::Workspace as PublicWorkspace;
use berth_authz::Authenticated;
use berth_http::{Path, Problem, Query};

use super::{answer, load, patience};
use crate::domain::authorize::DeleteWorkspace;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::http::headers::IfMatch;
use crate::http::wait::Wait;
use crate::lifecycle::delete as lifecycle;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Deletes a workspace with its disk. Answers when the disk is wiped (202 when that takes too long); `?wait=false` answers at once.
#[utoipa::path(
    delete, path = "/api/v1/workspaces/{workspace}", tag = "workspaces", operation_id = "delete_workspace",
    params(
        ("workspace" = String, Path, description = "Its id or name"), Wait,
        IfMatch
    ),
    responses(
        (status = 204, description = "It is gone"), (status = 202, body = PublicWorkspace, description = "It is being deleted"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn delete(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Query(query): Query<Wait>,
) -> Result<Response, Problem> {
    let right = load::<DeleteWorkspace>(&api, &principal, &caller, &reference).await?;
    let expected = ETag::expected(&headers)?;
    let id = right.id;
    let mut transaction = api.begin().await?;
    if !store::workspaces::mark_deleting(&mut transaction, &right, expected.as_deref(), api.now()).await? {
        // A deletion that is under way is gone on with, by who saw it; whoever saw something else is told.
        let seen = |expected: Vec<i64>| right.deleting && expected.contains(&right.revision);
        if !expected.is_none_or(seen) {
            return Err(ETag::mismatch());
        }
    } else {
        let record = Record::by(&principal, &caller, right.action()).on("workspace", id.as_uuid(), &right.name);
        api.audit(&mut transaction, record).await?;
    }
    commit(transaction).await?;
    api.changes().publish(id);
    if query.wait.unwrap_or(true) && lifecycle::advance(&api, id, patience(&api)).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    api.nudge().notify_one();
    let mut workspace = right.into_resource();
    workspace.deleting = true;
    Ok(answer(StatusCode::ACCEPTED, &workspace))
}
