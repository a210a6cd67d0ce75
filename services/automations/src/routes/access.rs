//! Who may do what to which workspace: api decides.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use berth_api_types::internal::{Authorized, WorkspaceAction};
use berth_authz::Presented;
use berth_http::Problem;

use crate::State;

/// What a client showed.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    shown: Presented,
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &State) -> Result<Self, Problem> {
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
