//! Who may do what to which workspace: api decides.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use berth_api_types::internal::{AuditEvent, Authorized, WorkspaceAction};
use berth_api_types::public::Phase;
use berth_authz::Presented;
use berth_http::Problem;
use berth_ids::{InstanceId, WorkspaceId};
use sqlx::PgConnection;

use crate::State;
use crate::store::workspaces;

/// How long a request waits for a file to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client showed.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    shown: Presented,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self { shown: Presented::from_parts(parts)? })
    }
}

impl Caller {
    /// The right to do this to a workspace, by its id or name.
    pub(crate) async fn may(
        self,
        state: &State,
        workspace: &str,
        action: WorkspaceAction,
    ) -> Result<Authorized, Problem> {
        let question = self.shown.may(action, workspace);
        Ok(state.api.post("/internal/authorize", &question).await?)
    }

    /// The same, once the automations file of a workspace that runs was read: what was just started has its tasks.
    pub(crate) async fn may_in_file(
        self,
        state: &State,
        workspace: &str,
        action: WorkspaceAction,
    ) -> Result<Authorized, Problem> {
        let authorized = self.may(state, workspace, action).await?;
        if let (Phase::Running, Some(instance)) = (authorized.phase, authorized.instance_id) {
            let read = file_was_read(state, authorized.workspace_id, instance);
            // A workspace that does not let its file be read has what is known of it.
            if let Ok(read) = tokio::time::timeout(PATIENCE, read).await {
                read.map_err(Problem::internal)?;
            }
        }
        Ok(authorized)
    }
}

async fn file_was_read(state: &State, workspace: WorkspaceId, instance: InstanceId) -> Result<(), sqlx::Error> {
    let mut changes = state.jobs.changes.subscribe();
    loop {
        // A change from here on is not missed, whatever the look finds.
        changes.mark_unchanged();
        let mut conn = state.jobs.pool.acquire().await?;
        if workspaces::is_read(&mut conn, workspace, instance).await? {
            return Ok(());
        }
        drop(conn);
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Reports to the audit log what somebody did in a workspace, in the transaction that does it. The row has the workspace's id, and its name
/// within `target`.
pub(crate) async fn audit(
    state: &State,
    conn: &mut PgConnection,
    who: &Authorized,
    action: &str,
    target_type: &str,
    target: &str,
) -> Result<(), Problem> {
    let event = AuditEvent {
        at: state.jobs.clock.now(),
        actor_id: who.user_id,
        actor: who.actor.clone(),
        credential: who.credential.clone(),
        action: action.to_owned(),
        target_type: target_type.to_owned(),
        target_id: Some(who.workspace_id.as_uuid()),
        target: target.to_owned(),
    };
    berth_db::outbox::publish(conn, "audit", &who.user_id.to_string(), &event).await.map_err(Problem::internal)
}
