//! Who may do what to which workspace: api decides.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use berth_api_types::internal::{Authorize, Authorized, WorkspaceAction};
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
        let shown = Presented::from_parts(parts)?;
        // A cookie comes along by itself: what changes something must come from our own pages.
        let foreign = matches!(shown.fetch_site.as_deref(), Some("cross-site" | "same-site"));
        if shown.unsafe_request && shown.cookie.is_some() && shown.authorization.is_none() && foreign {
            return Err(Problem::forbidden("this request comes from a page of another site"));
        }
        Ok(Self { shown })
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
        let question = Authorize {
            authorization: self.shown.authorization,
            cookie: self.shown.cookie,
            // The socket's mode lets only its owner in; only root is an administrator by that alone.
            local_admin: self.shown.peer_uid == Some(0),
            workspace: workspace.to_owned(),
            action,
        };
        Ok(state.api.post("/internal/authorize", &question).await?)
    }
}
