//! Who may do what to which workspace: api decides.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use berth_api_types::internal::{AuditEvent, Authorized, WorkspaceAction};
use berth_authz::Presented;
use berth_http::Problem;
use sqlx::PgConnection;

use crate::State;

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
}

/// Reports to the audit log what somebody did in a workspace, in the transaction that does it.
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
        target: target.to_owned(),
    };
    berth_db::outbox::publish(conn, "audit", &who.user_id.to_string(), &event).await.map_err(Problem::internal)
}
