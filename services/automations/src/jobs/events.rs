//! Follows the events of workspaces: which are running, which have stopped, which are deleted.

use berth_api_types::internal::{InstanceLifecycle, WorkspaceEvent};
use berth_api_types::public::Phase;
use berth_clock::SharedClock;
use berth_db::outbox::{Event, Handler};
use sqlx::PgConnection;

use crate::store::{executions, workspaces};

/// Handles events of the topics `instance` and `workspace`. It only writes SQL; the manager does the rest when it is woken.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) clock: SharedClock,
}

impl Handler for Events {
    type Error = sqlx::Error;

    async fn handle(&mut self, conn: &mut PgConnection, event: &Event) -> Result<(), sqlx::Error> {
        match event.topic.as_str() {
            "workspace" => match event.parse() {
                Ok(WorkspaceEvent::Deleted { workspace_id }) => workspaces::remove(conn, workspace_id).await,
                Err(error) => {
                    tracing::error!(event = event.id, %error, "a workspace event is not understood: what was kept of it stays");
                    Ok(())
                }
            },
            _ => match event.parse() {
                Ok(lifecycle) => self.apply(conn, &lifecycle).await,
                Err(error) => {
                    tracing::error!(event = event.id, %error, "an instance event is not understood: its automations do not run");
                    Ok(())
                }
            },
        }
    }
}

impl Events {
    async fn apply(&self, conn: &mut PgConnection, lifecycle: &InstanceLifecycle) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        if !workspaces::apply(conn, lifecycle, now).await? {
            return Ok(());
        }
        let alive = (lifecycle.phase == Phase::Running).then_some(lifecycle.instance_id);
        executions::end_all(conn, lifecycle.workspace_id, alive, "the workspace stopped", now).await?;
        workspaces::wake(conn, lifecycle.instance_id).await
    }
}
