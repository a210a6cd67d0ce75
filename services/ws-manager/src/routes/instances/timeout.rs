//! `PUT /internal/instances/{id}/timeout`: another inactivity timeout for this run.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::internal::SetTimeout;
use berth_http::{Json, Path, Problem};
use berth_ids::InstanceId;
use serde_json::json;

use super::super::App;

/// 204; 404 when there is no such instance (any more).
pub(in crate::routes) async fn handle(
    State(app): State<App>,
    Path(id): Path<InstanceId>,
    Json(timeout): Json<SetTimeout>,
) -> Result<StatusCode, Problem> {
    // Whoever sets it is there: counted from before, a shorter one would stop the workspace at once and without a warning.
    super::activity::mark(&app, id).await?;
    let patch = json!({ "spec": { "timeouts": { "inactivitySeconds": timeout.inactivity_seconds } } });
    let patched = app.cluster.patch_workspace(&id.to_string(), &patch).await.map_err(super::super::cluster)?;
    patched.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| super::missing(id))
}
