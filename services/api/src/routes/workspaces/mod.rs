//! Workspaces.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod list;
pub(super) mod receipt;
pub(super) mod show;
pub(super) mod start;
pub(super) mod stop;
pub(super) mod update;
pub(super) mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::AuditResult;
use berth_authz::{Authorized, Denied, Principal};
use berth_http::{Json, Problem};

use crate::domain::authorize::WorkspaceAct;
use crate::domain::workspace::Workspace;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::lifecycle::wait::Waited;
use crate::state::Api;
use crate::store;
use crate::store::audit::Record;
use crate::store::workspaces::LoadError;

/// The right to do `A` to the workspace in the path. A refusal to somebody who may see it goes into the audit log.
pub(in crate::routes) async fn load<A>(
    api: &Api,
    principal: &Arc<Principal>,
    caller: &Caller,
    reference: &str,
) -> Result<Authorized<Workspace, A>, Problem>
where
    A: WorkspaceAct,
{
    let mut conn = api.connection().await?;
    match store::workspaces::load::<A>(&mut conn, principal, reference).await {
        Ok(right) => Ok(right),
        Err(LoadError::Denied(Denied::Hidden { .. })) => Err(unknown(reference)),
        Err(LoadError::Denied(denied)) => Err(denied.into()),
        Err(LoadError::Store(error)) => Err(error.into()),
        Err(LoadError::Refused { denied, workspace }) => {
            let record =
                Record::by(principal, caller, A::NAME).on("workspace", workspace.id.as_uuid(), &workspace.name);
            api.audit(&mut conn, record.result(AuditResult::Denied)).await?;
            Err(denied.into())
        }
    }
}

/// What is not there, or not to be known of, by the name that was asked for.
fn unknown(reference: &str) -> Problem {
    let reference: String = reference.chars().take(80).collect();
    Problem::not_found(format!("there is no such workspace: {reference:?} (`berth list` shows yours)"))
}

/// A workspace as an answer, with its version as `ETag`.
fn answer(status: StatusCode, workspace: &Workspace) -> Response {
    (status, [(header::ETAG, ETag::of_workspace(workspace).header())], Json(workspace.public())).into_response()
}

/// The workspace after a wait: 202 if it is not yet in the wanted state.
fn answer_waited(waited: Waited) -> Result<Response, Problem> {
    let status = if waited.done { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer(status, &waited.workspace()?))
}

/// How long an answer may wait.
fn patience(api: &Api) -> Duration {
    Duration::from_secs(u64::from(api.config().wait_seconds))
}

/// A workspace that is being deleted accepts no other operations.
fn not_deleting(workspace: &Workspace) -> Result<(), Problem> {
    if workspace.deleting {
        return Err(Problem::conflict("being_deleted", "the workspace is being deleted"));
    }
    Ok(())
}
