//! Waiting until a workspace is in the wanted state: woken by each change of it, without polling.

use std::time::Duration;

use berth_http::Problem;
use berth_ids::WorkspaceId;
use tokio::sync::broadcast::error::RecvError;

use crate::changes::Change;
use crate::domain::workspace::Workspace;
use crate::state::Api;
use crate::store::{self, StoreError};

/// How the wait ended.
#[derive(Debug)]
pub(crate) struct Waited {
    /// Its current state; `None`: it is deleted.
    pub(crate) workspace: Option<Workspace>,
    /// It is in the wanted state, or deleted; false: the time was up.
    pub(crate) done: bool,
}

impl Waited {
    /// The workspace, which the caller has already been authorised to see.
    ///
    /// # Errors
    /// 404 when it is deleted.
    pub(crate) fn workspace(self) -> Result<Workspace, Problem> {
        self.workspace.ok_or_else(|| Problem::not_found("the workspace was deleted meanwhile"))
    }
}

/// Waits at most `patience`.
pub(crate) async fn until(
    api: &Api,
    id: WorkspaceId,
    patience: Duration,
    wanted: impl Fn(&Workspace) -> bool,
) -> Result<Waited, StoreError> {
    let deadline = tokio::time::Instant::now() + patience;
    // Subscribed before the first look, so that no change is missed in between.
    let mut changes = api.changes().subscribe();
    loop {
        let mut conn = api.connection().await?;
        let workspace = store::workspaces::find(&mut conn, id).await?;
        drop(conn);
        let done = workspace.as_ref().is_none_or(&wanted);
        if done {
            return Ok(Waited { workspace, done });
        }
        loop {
            match tokio::time::timeout_at(deadline, changes.recv()).await {
                Err(_) => return Ok(Waited { workspace, done: false }),
                Ok(Ok(Change::Workspace(changed))) if changed != id => {}
                Ok(Ok(Change::Workspace(_) | Change::Resync) | Err(RecvError::Lagged(_))) => break,
                // The sender lives as long as the service.
                Ok(Err(RecvError::Closed)) => return Ok(Waited { workspace, done: false }),
            }
        }
    }
}
