//! `GET /internal/workspaces/{workspace}`.

use axum::extract::State;
use berth_api_types::internal::WorkspaceInfo;
use berth_http::{Json, Path, Problem};
use berth_ids::WorkspaceId;

use crate::state::Api;
use crate::store;

/// A workspace, by its id.
pub(in crate::routes) async fn show_workspace(
    State(api): State<Api>,
    Path(id): Path<WorkspaceId>,
) -> Result<Json<WorkspaceInfo>, Problem> {
    let unknown = || Problem::not_found("there is no such workspace");
    let mut conn = api.connection().await?;
    let workspace = store::workspaces::find(&mut conn, id).await?.ok_or_else(unknown)?;
    let (context, allow_private_hosts) = store::workspaces::context(&mut conn, id).await?.ok_or_else(unknown)?;
    let node = workspace.instance.as_ref().and_then(|run| run.node.clone());
    Ok(Json(WorkspaceInfo { workspace: workspace.public(), context, allow_private_hosts, node }))
}
