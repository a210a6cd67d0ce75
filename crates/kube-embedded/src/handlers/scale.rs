//! The `/scale` part of custom resources: `autoscaling/v1` Scale over fields that the CRD names.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::write::{self, Attempt, RETRIES};
use super::{Call, read};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::meta;
use crate::patch;
use crate::registry::Scale;
use crate::view;

fn read_path<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |at, name| &at[name])
}

fn write_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = value;
}

fn scale_of(paths: &Scale, object: &Value) -> Value {
    let mut metadata = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(name) {
            metadata.insert(name.into(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = read_path(object, &paths.spec_replicas).as_i64() {
        spec.insert("replicas".into(), json!(replicas));
    }
    let mut status = Map::new();
    status.insert("replicas".into(), json!(read_path(object, &paths.status_replicas).as_i64().unwrap_or(0)));
    if let Some(selector) = paths.label_selector.as_deref().and_then(|path| read_path(object, path).as_str()) {
        status.insert("selector".into(), json!(selector));
    }
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status })
}

fn paths(call: &Call) -> ApiResult<Scale> {
    call.resource.scale.clone().ok_or_else(ApiError::path_not_found)
}

pub(super) fn get(call: &Call) -> ApiResult<Response> {
    let object = view::value(&call.resource, &*call.current()?);
    Ok(call.plain(StatusCode::OK, &scale_of(&paths(call)?, &object)))
}

pub(super) async fn update(call: Call, body: Body) -> ApiResult<Response> {
    let dry_run = call.query.dry_run("UpdateOptions")?;
    let (media, bytes) = read(&call, body).await?;
    let scale = body::parse(&media, &bytes)?.value;
    store(&call, dry_run, |_| Ok(scale.clone())).await
}

pub(super) async fn patch(call: Call, body: Body) -> ApiResult<Response> {
    let dry_run = call.query.dry_run("PatchOptions")?;
    let (media, bytes) = read(&call, body).await?;
    let change = body::yaml(&bytes)?.value;
    store(&call, dry_run, |scale| {
        let mut scale = scale.clone();
        match media.as_str() {
            "application/json-patch+json" => patch::json::apply(&mut scale, &change)?,
            _ => patch::merge::apply(&mut scale, &change),
        }
        Ok(scale)
    })
    .await
}

async fn store(call: &Call, dry_run: bool, change: impl Fn(&Value) -> ApiResult<Value>) -> ApiResult<Response> {
    let paths = paths(call)?;
    for _ in 0..RETRIES {
        let current = call.current()?;
        let old = view::value(&call.resource, &current);
        let wanted = change(&scale_of(&paths, &old))?;
        let pinned = meta::text(&wanted, "resourceVersion");
        if !pinned.is_empty() && pinned != current.revision.to_string() {
            return Err(ApiError::conflict(call.resource.subject(), &call.target.name));
        }
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut new = old.clone();
        write_path(&mut new, &paths.spec_replicas, json!(replicas));
        write::finish(call, &mut new, Some(&old), "scale", true)?;
        if dry_run {
            return Ok(call.plain(StatusCode::OK, &scale_of(&paths, &new)));
        }
        if let Attempt::Done(object) = write::commit_update(call, &current, &old, new).await? {
            let object = view::value(&call.resource, &object);
            return Ok(call.plain(StatusCode::OK, &scale_of(&paths, &object)));
        }
    }
    Err(ApiError::conflict(call.resource.subject(), &call.target.name))
}
