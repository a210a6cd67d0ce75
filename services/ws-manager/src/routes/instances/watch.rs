//! `GET /internal/instances/watch`: the list, `synced`, then each change, as server-sent events.

use axum::extract::State;
use axum::response::IntoResponse;
use berth_http::{Problem, sse};

use super::super::App;

/// Waits for the first list of the cluster: what is not sent before `synced` does not exist.
pub(in crate::routes) async fn handle(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    super::super::ready(&app).await?;
    Ok(sse::json_stream(app.cluster.directory.watch()))
}
