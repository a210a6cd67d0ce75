//! `POST /api/v1/workspaces/{workspace}/stop`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use berth_api_types::public::Workspace as PublicWorkspace;
use berth_authz::Authenticated;
use berth_http::{Path, Problem, Query};

use super::{answer, answer_waited, load, patience};
use crate::domain::authorize::StopWorkspace;
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::http::wait::Wait;
use crate::lifecycle::{stop as lifecycle, wait};
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Stops a workspace; its disk stays. Answers when it is stopped (202 when that takes too long); `?wait=false` answers at once.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/stop", tag = "workspaces", operation_id = "stop_workspace",
    params(
        ("workspace" = String, Path, description = "Its id or name"), Wait,
        IdempotencyKey
    ),
    responses(
        (status = 200, body = PublicWorkspace), (status = 202, body = PublicWorkspace, description = "It is being stopped"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn stop(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(reference): Path<String>,
    Query(query): Query<Wait>,
) -> Result<Response, Problem> {
    let right = load::<StopWorkspace>(&api, &principal, &caller, &reference).await?;
    let Some(run) = right.live() else { return Ok(answer(StatusCode::OK, &right)) };
    let reason = if principal.user_id == right.owner_id {
        "stopped by its owner".to_owned()
    } else {
        format!("stopped by {}", principal.name)
    };
    let mut transaction = api.begin().await?;
    if store::instances::request_stop(&mut transaction, run.id, &reason, api.now()).await? {
        let record = Record::by(&principal, &caller, right.action()).on("workspace", right.id.as_uuid(), &right.name);
        api.audit(&mut transaction, record.detail(serde_json::json!({ "instance_id": run.id }))).await?;
    }
    commit(transaction).await?;
    lifecycle::send(&api, run.id, &reason, false).await?;
    let patience = if query.wait.unwrap_or(true) { patience(&api) } else { std::time::Duration::ZERO };
    answer_waited(wait::until(&api, right.id, patience, |workspace| workspace.live().is_none()).await?)
}
