//! POST to `pods/x/binding`: a scheduler names the pod's node.

use axum::body::Body;
use axum::response::Response;
use chrono::SecondsFormat;
use http::StatusCode;
use serde_json::json;

use super::write::{self, Attempt, RETRIES};
use super::{Call, read};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::view;

pub(super) async fn bind(call: Call, body: Body) -> ApiResult<Response> {
    let (media, bytes) = read(&call, body).await?;
    let binding = body::parse(&media, &bytes)?.value;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request("the binding's target.name must name a node"));
    }
    let subject = call.resource.subject();
    for _ in 0..RETRIES {
        let current = call.current()?;
        let old = view::value(&call.resource, &current);
        if crate::meta::is_deleting(&old) {
            let why = format!("pod {} is being deleted, cannot be assigned to a host", call.target.name);
            return Err(ApiError::conflict_because(subject, &call.target.name, &why));
        }
        let assigned = old["spec"]["nodeName"].as_str().unwrap_or_default();
        if !assigned.is_empty() {
            let why = format!("pod {} is already assigned to node {assigned:?}", call.target.name);
            return Err(ApiError::conflict_because(subject, &call.target.name, &why));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!(node);
        let scheduled = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": call.now.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(scheduled);
        new["status"]["conditions"] = json!(conditions);
        write::finish(&call, &mut new, Some(&old), "binding", true)?;
        if let Attempt::Done(_) = write::commit_update(&call, &current, &old, new).await? {
            let status =
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
            return Ok(call.plain(StatusCode::CREATED, &status));
        }
    }
    Err(ApiError::conflict(subject, &call.target.name))
}
