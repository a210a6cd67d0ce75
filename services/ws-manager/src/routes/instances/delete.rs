//! `DELETE /internal/instances/{id}`: api has stored the last status; the object may go.

use axum::extract::State;
use axum::http::StatusCode;
use berth_http::{Path, Problem};
use berth_ids::InstanceId;

use super::super::App;

/// 204; one that still runs is stopped in good order first. 404 when it is gone already.
pub(in crate::routes) async fn handle(
    State(app): State<App>,
    Path(id): Path<InstanceId>,
) -> Result<StatusCode, Problem> {
    let found = app.cluster.delete_workspace(&id.to_string()).await.map_err(super::super::cluster)?;
    if found { Ok(StatusCode::NO_CONTENT) } else { Err(super::missing(id)) }
}
