//! `GET /internal/instances` and `GET /internal/instances/{id}`.

use axum::extract::State;
use berth_api_types::internal::InstanceStatus;
use berth_http::{Json, Path, Problem};
use berth_ids::InstanceId;

use super::super::App;
use crate::domain::instance;

/// All, by id.
pub(in crate::routes) async fn list(State(app): State<App>) -> Result<Json<Vec<InstanceStatus>>, Problem> {
    super::super::ready(&app).await?;
    Ok(Json(app.cluster.directory.list()))
}

/// One.
pub(in crate::routes) async fn get(
    State(app): State<App>,
    Path(id): Path<InstanceId>,
) -> Result<Json<InstanceStatus>, Problem> {
    let workspace = super::find(&app, id).await?;
    instance::of(&workspace).map(Json).map_err(Problem::internal)
}
