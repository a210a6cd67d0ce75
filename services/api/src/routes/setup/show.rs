//! `GET /api/v1/setup`.

use axum::extract::State;
use berth_api_types::public::SetupStatus;
use berth_http::{Json, Problem};

use crate::state::Api;
use crate::store;

/// Whether the first administrator was made.
#[utoipa::path(
    get, path = "/api/v1/setup", tag = "setup", operation_id = "show_setup", security(()),
    responses((status = 200, body = SetupStatus), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn show(State(api): State<Api>) -> Result<Json<SetupStatus>, Problem> {
    let mut conn = api.connection().await?;
    let set_up = store::setup::is_done(&mut conn).await?;
    Ok(Json(SetupStatus { set_up }))
}
