//! `POST /internal/instances/{id}/activity`: the user did something; the inactivity timeout begins anew.

use axum::extract::State;
use axum::http::StatusCode;
use berth_http::{Path, Problem};
use berth_ids::InstanceId;
use berth_workspace_crd::{Condition, ConditionStatus, ConditionType, Phase};
use serde_json::json;

use super::super::App;
use crate::domain::time;

/// Marks closer to each other than this are one.
const RESOLUTION_MS: i64 = 1000;

/// 204, also for an instance that is over: a late mark changes nothing.
pub(in crate::routes) async fn handle(
    State(app): State<App>,
    Path(id): Path<InstanceId>,
) -> Result<StatusCode, Problem> {
    mark(&app, id).await
}

/// The same for what is an activity besides.
pub(super) async fn mark(app: &App, id: InstanceId) -> Result<StatusCode, Problem> {
    let workspace = super::find(app, id).await?;
    let status = workspace.status.clone().unwrap_or_default();
    let now = app.clock.now();
    let last = status.last_activity.as_deref().and_then(time::parse);
    let just_now = last.is_some_and(|last| (now - last).num_milliseconds() < RESOLUTION_MS);
    if status.phase >= Phase::Stopping || just_now {
        return Ok(StatusCode::NO_CONTENT);
    }
    let mut fields = json!({ "lastActivity": time::text(now) });
    if !status.is(ConditionType::FirstUserActivity) {
        let first = Condition {
            status: ConditionStatus::True,
            reason: "Activity".to_owned(),
            message: String::new(),
            last_transition_time: time::text(now),
            attempt: 0,
        };
        fields["conditions"] = json!({ "FirstUserActivity": first });
    }
    let patch = json!({ "status": fields });
    let patched = app.cluster.patch_status(&id.to_string(), &patch).await.map_err(super::super::cluster)?;
    patched.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| super::missing(id))
}
