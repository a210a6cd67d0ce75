//! PUT of an object or of one of its parts.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::write::{self, Attempt, RETRIES};
use super::{Call, create, read};
use crate::body;
use crate::error::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::view;

pub(super) async fn update(mut call: Call, body: Body, subresource: &str) -> ApiResult<Response> {
    let dry_run = call.query.dry_run("UpdateOptions")?;
    let validation = call.query.field_validation("UpdateOptions")?;
    let (media, bytes) = read(&call, body).await?;
    let mut parsed = body::parse(&media, &bytes)?;
    write::check_kind(&call.resource, &mut parsed.value)?;
    let mut object = write::clean(&mut call, parsed, validation)?;
    write::check_namespace(&call, &mut object)?;
    let name = meta::text(&object, "name");
    if name.is_empty() {
        return Err(ApiError::bad_request("the name of the object must be set to update it"));
    }
    if name != call.target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    put(&call, object, subresource, dry_run).await
}

/// Replaces the object by `object`.
pub(super) async fn put(call: &Call, object: Value, subresource: &str, dry_run: bool) -> ApiResult<Response> {
    let resource = &call.resource;
    let pinned = meta::text(&object, "resourceVersion").to_owned();
    for _ in 0..RETRIES {
        let current = match call.current() {
            Ok(current) => current,
            Err(_) if subresource.is_empty() && resource.creates_on_update() && pinned.is_empty() => {
                return create::store(call, object, dry_run, None).await;
            }
            Err(error) => return Err(error),
        };
        if pinned.is_empty() && !resource.unconditional_update() && subresource != "scale" {
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            let subject = crate::error::Subject { kind: &resource.plural, ..resource.subject() };
            return Err(ApiError::invalid(subject, &call.target.name, &[cause]));
        }
        if !pinned.is_empty() && pinned != current.revision.to_string() {
            return Err(ApiError::conflict(resource.subject(), &call.target.name));
        }
        let uid = meta::text(&object, "uid");
        if !uid.is_empty() && uid != &*current.facts.uid {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.facts.uid);
            return Err(ApiError::conflict_because(resource.subject(), &call.target.name, &why));
        }
        let old = view::value(resource, &current);
        let mut new = object.clone();
        if new["metadata"].get("managedFields").is_none() {
            meta::keep(&mut new, &old, "managedFields");
        }
        write::finish(call, &mut new, Some(&old), subresource, true)?;
        if dry_run {
            meta::keep(&mut new, &old, "resourceVersion");
            return call.value(StatusCode::OK, new);
        }
        match write::commit_update(call, &current, &old, new).await? {
            Attempt::Done(object) => return call.object(StatusCode::OK, &object),
            Attempt::Changed if pinned.is_empty() => {}
            Attempt::Changed => break,
        }
    }
    Err(ApiError::conflict(resource.subject(), &call.target.name))
}
