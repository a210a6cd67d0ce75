//! Deleting a workspace: stop it, wipe its disk, forget it. The row says how far that has come, so each step may be repeated.

use std::time::Duration;

use berth_api_types::internal::WorkspaceEvent;
use berth_db::outbox;
use berth_http::Problem;
use berth_ids::WorkspaceId;

use super::{stop, wait};
use crate::state::Api;
use crate::store;

/// The outbox topic of workspace events.
const TOPIC: &str = "workspace";

/// The reason of its last run.
pub(crate) const REASON: &str = "the workspace was deleted";

/// Takes a deletion as far as it gets within `patience`; true when it is done.
pub(crate) async fn advance(api: &Api, id: WorkspaceId, patience: Duration) -> Result<bool, Problem> {
    let mut conn = api.connection().await?;
    let Some(workspace) = store::workspaces::find(&mut conn, id).await? else { return Ok(true) };
    if !workspace.deleting {
        return Ok(false);
    }
    if let Some(run) = workspace.live() {
        store::instances::request_stop(&mut conn, run.id, REASON, api.now()).await?;
        drop(conn);
        stop::send(api, run.id, REASON, true).await?;
        let stopped = wait::until(api, id, patience, |workspace| workspace.live().is_none()).await?;
        if !stopped.done {
            return Ok(false);
        }
    } else {
        drop(conn);
    }
    api.ws_manager().delete(&format!("/internal/disks/{id}")).await?;
    let mut transaction = api.begin().await?;
    if store::workspaces::mark_deleted(&mut transaction, id, api.now()).await? {
        let event = WorkspaceEvent::Deleted { workspace_id: id };
        let published = outbox::publish(&mut transaction, TOPIC, &id.to_string(), &event).await;
        published.map_err(store::StoreError::from)?;
    }
    crate::state::commit(transaction).await?;
    api.changes().publish(id);
    Ok(true)
}
