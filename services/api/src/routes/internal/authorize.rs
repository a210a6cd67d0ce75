//! `POST /internal/authorize`.

use std::sync::Arc;

use axum::extract::State;
use berth_api_types::internal::{Act, Authorize, Authorized as Answer, WorkspaceAction};
use berth_authz::{Authorized, Presented, Principal};
use berth_http::{Json, Problem};

use crate::domain::authorize::{ConnectToWorkspace, ExecInWorkspace, ReadWorkspace, WorkspaceAct};
use crate::domain::workspace::Workspace;
use crate::http::caller::Caller;
use crate::layers::principal::count;
use crate::routes::workspaces::load;
use crate::state::Api;
use crate::store::audit::Record;

/// Whose credentials these are, and whether they may do this to the workspace. A cookie counts only where it would count here.
pub(in crate::routes) async fn authorize(
    State(api): State<Api>,
    Json(question): Json<Authorize>,
) -> Result<Json<Answer>, Problem> {
    let presented = Presented {
        authorization: question.authorization,
        cookie: question.cookie,
        peer_uid: question.local_admin.then(|| api.config().local_admin_uids.first().copied()).flatten(),
        origin: question.origin,
        fetch_site: question.fetch_site,
        unsafe_request: question.unsafe_request,
    };
    let principal = api.authenticator().authenticate(&presented).await?;
    if question.uncounted {
        count(&api, &principal)?;
    }
    let workspace = match question.action {
        WorkspaceAction::Read => check::<ReadWorkspace>(&api, &principal, &question.workspace).await?,
        WorkspaceAction::Exec => check::<ExecInWorkspace>(&api, &principal, &question.workspace).await?,
        WorkspaceAction::Connect => check::<ConnectToWorkspace>(&api, &principal, &question.workspace).await?,
    };
    if let Some(Act { name, detail }) = question.act {
        let record = Record::by(&principal, &Caller::default(), &name);
        let record = record.on("workspace", workspace.id.as_uuid(), &workspace.name).detail(detail);
        let mut conn = api.connection().await?;
        api.audit(&mut conn, record).await?;
    }
    let run = workspace.instance.as_ref();
    Ok(Json(Answer {
        user_id: principal.user_id,
        actor: principal.email.clone(),
        credential: principal.credential.to_string(),
        workspace_id: workspace.id,
        workspace_name: workspace.name.clone(),
        instance_id: run.map(|run| run.id),
        phase: workspace.phase(),
        node: run.and_then(|run| run.node.clone()),
    }))
}

async fn check<A: WorkspaceAct>(api: &Api, principal: &Arc<Principal>, reference: &str) -> Result<Workspace, Problem> {
    let right: Authorized<Workspace, A> = load(api, principal, &Caller::default(), reference).await?;
    Ok(right.into_resource())
}
