//! `POST /internal/instances/{id}/stop`: records the request and returns at once; the watch tells when it is done.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::internal::{InstanceStatus, StopInstance};
use berth_http::{Json, Path, Problem};
use berth_ids::InstanceId;
use berth_workspace_crd::{Condition, ConditionStatus, ConditionType, Phase};
use serde_json::json;

use super::super::App;
use crate::domain::{instance, time};

/// 202 with the status as it is after the wish was noted; 404 when there is no such instance (any more).
pub(in crate::routes) async fn handle(
    State(app): State<App>,
    Path(id): Path<InstanceId>,
    Json(stop): Json<StopInstance>,
) -> Result<(StatusCode, Json<InstanceStatus>), Problem> {
    let workspace = super::find(&app, id).await?;
    let status = workspace.status.clone().unwrap_or_default();
    let noted = status.is(ConditionType::StoppedByRequest) && (!stop.abort || status.is(ConditionType::Aborted));
    if noted || status.phase == Phase::Stopped {
        return Ok((StatusCode::ACCEPTED, Json(instance::of(&workspace).map_err(Problem::internal)?)));
    }
    let condition = |message: String| Condition {
        status: ConditionStatus::True,
        reason: "Requested".to_owned(),
        message,
        last_transition_time: time::text(app.clock.now()),
        attempt: 0,
    };
    // Both in one patch: an abort must never become a stop that keeps the content because half of it got lost.
    let mut conditions = serde_json::Map::new();
    if !status.is(ConditionType::StoppedByRequest) {
        conditions.insert("StoppedByRequest".to_owned(), json!(condition(stop.reason.clone())));
    }
    if stop.abort {
        conditions.insert("Aborted".to_owned(), json!(condition(stop.reason)));
    }
    let patch = json!({ "status": { "conditions": conditions } });
    let patched = app.cluster.patch_status(&id.to_string(), &patch).await.map_err(super::super::cluster)?;
    let patched = patched.ok_or_else(|| super::missing(id))?;
    Ok((StatusCode::ACCEPTED, Json(instance::of(&patched).map_err(Problem::internal)?)))
}
