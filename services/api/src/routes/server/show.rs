//! `GET /api/v1/server`.

use axum::extract::State;
use berth_api_types::public::ServerStatus;
use berth_authz::Authenticated;
use berth_http::{Json, Problem};

use crate::state::Api;
use crate::store;

/// Version, process and age of the server.
#[utoipa::path(
    get, path = "/api/v1/server", tag = "server", operation_id = "show_server",
    responses((status = 200, body = ServerStatus), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn show(
    State(api): State<Api>,
    Authenticated(_principal): Authenticated,
) -> Result<Json<ServerStatus>, Problem> {
    let mut conn = api.connection().await?;
    let set_up = store::setup::is_done(&mut conn).await?;
    Ok(Json(ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: api.started_at(),
        set_up,
        public_url: api.config().public_url.clone(),
    }))
}
