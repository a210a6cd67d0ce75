//! Waiting until a workspace is as wanted: woken by each change of it, no polling.

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
    /// As it is now; none: it is deleted.
    pub(crate) workspace: Option<Workspace>,
    /// It is as wanted, or deleted; else the time was up.
    pub(crate) done: bool,
}

impl Waited {
    /// The workspace, which whoever waited for has a right to know of.
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
    // Before the first look, so that no change falls between.
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
