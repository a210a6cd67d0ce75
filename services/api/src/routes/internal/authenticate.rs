//! `POST /internal/authenticate`.

use axum::extract::State;
use berth_authz::{Presented, Principal};
use berth_http::{Json, Problem};

use crate::state::Api;

/// Who showed this.
pub(in crate::routes) async fn authenticate(
    State(api): State<Api>,
    Json(presented): Json<Presented>,
) -> Result<Json<Principal>, Problem> {
    let principal = api.authenticator().authenticate(&presented).await?;
    Ok(Json(principal.as_ref().clone()))
}
