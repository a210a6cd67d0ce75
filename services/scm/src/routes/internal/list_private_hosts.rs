//! `POST /internal/private-hosts`: what a repository needs and still may have.

use axum::extract::State;
use berth_api_types::internal::{PrivateHosts, PrivateHostsQuery};
use berth_http::Json;

use crate::State as Service;

/// The private hosts that a workspace of this repository may reach according to the current configuration.
pub(crate) async fn handler(State(state): State<Service>, Json(body): Json<PrivateHostsQuery>) -> Json<PrivateHosts> {
    Json(PrivateHosts { allow_private_hosts: state.allowed_private_host(&body.clone_url).into_iter().collect() })
}
