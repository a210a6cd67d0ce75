//! Follows the events of instances: which workspaces run, and which stopped.

use berth_api_types::internal::InstanceLifecycle;
use berth_api_types::public::Phase;
use berth_clock::SharedClock;
use berth_db::outbox::{Event, Handler};
use sqlx::PgConnection;

use crate::store::{executions, workspaces};

/// Handles events of the topic `instance`. It only writes SQL; the manager does the rest when it is woken.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) clock: SharedClock,
}

impl Handler for Events {
    type Error = sqlx::Error;

    async fn handle(&mut self, conn: &mut PgConnection, event: &Event) -> Result<(), sqlx::Error> {
        let lifecycle: InstanceLifecycle = match event.parse() {
            Ok(lifecycle) => lifecycle,
            Err(error) => {
                tracing::error!(event = event.id, %error, "an instance event is not understood: its automations do not run");
                return Ok(());
            }
        };
        let now = self.clock.now();
        if !workspaces::apply(conn, &lifecycle, now).await? {
            return Ok(());
        }
        let alive = (lifecycle.phase == Phase::Running).then_some(lifecycle.instance_id);
        executions::end_all(conn, lifecycle.workspace_id, alive, "the workspace stopped", now).await?;
        workspaces::wake(conn, lifecycle.instance_id).await
    }
}
