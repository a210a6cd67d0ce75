//! `DELETE /internal/disks/{workspace_id}`: the workspace is deleted, and its bytes go.

use axum::extract::State;
use axum::http::StatusCode;
use berth_http::{Path, Problem};
use berth_ids::WorkspaceId;
use berth_workspace_crd::Phase;
use kube::ResourceExt as _;

use super::App;

/// 204 when the deletion has begun or there is no disk; 409 while an instance of the workspace is not over.
pub(super) async fn delete(State(app): State<App>, Path(id): Path<WorkspaceId>) -> Result<StatusCode, Problem> {
    super::ready(&app).await?;
    let name = id.to_string();
    let user = app.cluster.workspaces.all().into_iter().find(|instance| {
        let over = instance.status.as_ref().is_some_and(|status| status.phase == Phase::Stopped);
        instance.spec.workspace_id == name && !over
    });
    if let Some(instance) = user {
        let instance = instance.name_any();
        return Err(Problem::conflict(
            "disk_in_use",
            format!("the disk of workspace {id} is in use by instance {instance}: stop it first"),
        ));
    }
    app.cluster.delete_disk(&name).await.map_err(super::cluster)?;
    Ok(StatusCode::NO_CONTENT)
}
