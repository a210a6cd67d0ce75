//! `POST /api/v1/workspaces/{workspace}/start`.

use axum::extract::State;
use axum::response::Response;
use berth_api_types::public::{Phase, Workspace as PublicWorkspace};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Path, Problem, Query};

use super::{answer_waited, load, not_deleting, patience};
use crate::domain::authorize::StartWorkspace;
use crate::domain::instance::step;
use crate::domain::workspace::Workspace;
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::http::wait::Wait;
use crate::lifecycle::{start, wait};
use crate::state::{Api, commit};
use crate::store::audit::Record;
use crate::store::{Conflict, StoreError};

/// A start is done when the workspace can be used, or has failed.
pub(super) fn settled(workspace: &Workspace) -> bool {
    matches!(workspace.phase(), Phase::Running | Phase::Stopped)
}

/// Starts a workspace where it was stopped. Answers when it runs (202 when that takes too long); `?wait=false` answers at once.
///
/// A failed start is answered with the workspace too: its phase is Stopped, and `reason` says why.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/start", tag = "workspaces", operation_id = "start_workspace",
    params(
        ("workspace" = String, Path, description = "Its id or name"), Wait,
        IdempotencyKey
    ),
    responses(
        (status = 200, body = PublicWorkspace), (status = 202, body = PublicWorkspace, description = "It is on its way"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn start(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(reference): Path<String>,
    Query(query): Query<Wait>,
) -> Result<Response, Problem> {
    let requested_at = api.now();
    let mut right = load::<StartWorkspace>(&api, &principal, &caller, &reference).await?;
    not_deleting(&right)?;
    let waiting = query.wait.unwrap_or(true);
    if right.live().is_some_and(|run| run.phase == Phase::Stopping || run.stop_requested_at.is_some()) {
        if !waiting {
            return Err(Problem::conflict("stopping", "the workspace is being stopped: start it when that is done"));
        }
        let stopped = wait::until(&api, right.id, patience(&api), |workspace| workspace.live().is_none()).await?;
        if !stopped.done {
            return answer_waited(stopped);
        }
        right = Authorized::<Workspace, StartWorkspace>::check(&principal, stopped.workspace()?)?;
        not_deleting(&right)?;
    }
    let id = right.id;
    if right.live().is_none() {
        let authorized_at = api.now();
        let steps = vec![step("authorize", requested_at, authorized_at)];
        let mut transaction = api.begin().await?;
        match start::insert(&api, &mut transaction, &right, requested_at, steps.clone()).await {
            Ok(run) => {
                let record = Record::by(&principal, &caller, right.action()).on("workspace", id.as_uuid(), &right.name);
                api.audit(&mut transaction, record.detail(serde_json::json!({ "instance_id": run.id }))).await?;
                commit(transaction).await?;
                api.changes().publish(id);
                start::send(&api, run.id, Some((authorized_at, steps))).await?;
            }
            // Another start was faster; its run is as good.
            Err(StoreError::Conflict(Conflict::Running)) => drop(transaction),
            Err(error) => return Err(error.into()),
        }
    }
    let patience = if waiting { patience(&api) } else { std::time::Duration::ZERO };
    answer_waited(wait::until(&api, id, patience, settled).await?)
}
