//! PATCH, in its four kinds.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::write::{self, Attempt, RETRIES};
use super::{Call, create, read};
use crate::body;
use crate::error::{ApiError, ApiResult, Cause};
use crate::fields::{manage, typed};
use crate::meta;
use crate::patch;
use crate::request::FieldValidation;
use crate::schema;
use crate::store::object::Object;
use crate::view;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn kind(call: &Call) -> ApiResult<Kind> {
    match body::media(&call.headers) {
        JSON => Ok(Kind::Json),
        MERGE => Ok(Kind::Merge),
        STRATEGIC if !call.resource.is_custom() => Ok(Kind::Strategic),
        APPLY => Ok(Kind::Apply),
        _ if call.resource.is_custom() => Err(ApiError::unsupported_media(&[JSON, MERGE, APPLY])),
        _ => Err(ApiError::unsupported_media(&[JSON, MERGE, STRATEGIC, APPLY])),
    }
}

fn option_problem(cause: Cause) -> ApiError {
    ApiError::invalid_options("PatchOptions", &[cause])
}

pub(super) async fn patch(mut call: Call, body: Body, subresource: &str) -> ApiResult<Response> {
    let kind = kind(&call)?;
    let dry_run = call.query.dry_run("PatchOptions")?;
    let validation = call.query.field_validation("PatchOptions")?;
    let manager = call.query.text("fieldManager");
    if kind == Kind::Apply && manager.is_empty() {
        return Err(option_problem(Cause::required("fieldManager", "is required for apply patch")));
    }
    if manager.len() > 128 {
        return Err(option_problem(Cause::new(
            "FieldValueTooLong",
            "fieldManager",
            "Too long: may not be more than 128 bytes",
        )));
    }
    if kind != Kind::Apply && call.query.get("force").is_some() {
        return Err(option_problem(Cause::forbidden("force", "may not be specified for non-apply patch")));
    }
    let (_, bytes) = read(&call, body).await?;
    if kind == Kind::Apply {
        return apply(call, &bytes, subresource, dry_run).await;
    }
    let parsed = body::json(&bytes)?;
    if kind != Kind::Json && !parsed.value.is_object() {
        return Err(ApiError::bad_request("the patch is not an object"));
    }
    let name = call.target.name.clone();
    write::complain(&mut call, validation, &parsed.duplicates, &[], Some(&name))?;
    for attempt in 0..RETRIES {
        let current = call.current()?;
        let (old, mut new) = patched(&mut call, &current, kind, &parsed.value, validation, attempt == 0)?;
        let pinned = meta::text(&new, "resourceVersion").to_owned();
        if !pinned.is_empty() && pinned != current.revision.to_string() {
            return Err(ApiError::conflict(call.resource.subject(), &name));
        }
        write::finish(&call, &mut new, Some(&old), subresource, true)?;
        if dry_run {
            meta::keep(&mut new, &old, "resourceVersion");
            return call.value(StatusCode::OK, new);
        }
        if let Attempt::Done(object) = write::commit_update(&call, &current, &old, new).await? {
            return call.object(StatusCode::OK, &object);
        }
        // A patch that names the version it was made for may not be tried on another.
        if names_version(&parsed.value) {
            break;
        }
    }
    Err(ApiError::conflict(call.resource.subject(), &name))
}

fn names_version(patch: &Value) -> bool {
    patch["metadata"].get("resourceVersion").is_some_and(|version| !version.is_null())
}

/// The state before, and after the patch.
fn patched(
    call: &mut Call,
    current: &Arc<Object>,
    kind: Kind,
    patch: &Value,
    validation: FieldValidation,
    first: bool,
) -> ApiResult<(Value, Value)> {
    let old = view::value(&call.resource, current);
    let mut new = old.clone();
    match kind {
        Kind::Json => patch::json::apply(&mut new, patch)?,
        Kind::Merge => patch::merge::apply(&mut new, patch),
        Kind::Strategic => patch::strategic::apply(&mut new, patch, &call.resource.schema)?,
        Kind::Apply => {}
    }
    if !new["metadata"].is_object() {
        let name = &call.target.name;
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    identity(call, &old, &new)?;
    let name = call.target.name.clone();
    let unknown = write::drop_unknown(&call.resource, &mut new).map_err(|error| {
        let cause = Cause::invalid("patch", &json!(name), &error.message);
        ApiError::invalid(call.resource.subject(), &name, &[cause])
    })?;
    if first {
        write::complain(call, validation, &[], &unknown, Some(&name))?;
    }
    Ok((old, new))
}

/// A patch must not turn the object into another one.
fn identity(call: &Call, old: &Value, new: &Value) -> ApiResult<()> {
    let subject = call.resource.subject();
    let name = &call.target.name;
    for (what, path) in [("name", "/metadata/name"), ("namespace", "/metadata/namespace")] {
        if new.pointer(path) != old.pointer(path) {
            let written = new.pointer(path).and_then(Value::as_str).unwrap_or_default();
            return Err(ApiError::bad_request(format!(
                "the {what} of the object ({written}) does not match the {what} on the URL ({})",
                old.pointer(path).and_then(Value::as_str).unwrap_or_default()
            )));
        }
    }
    if new["metadata"]["uid"] != old["metadata"]["uid"] {
        let cause = Cause::invalid("metadata.uid", &new["metadata"]["uid"], "field is immutable");
        return Err(ApiError::invalid(subject, name, &[cause]));
    }
    if new["kind"] != old["kind"] {
        let cause = Cause::invalid("kind", &new["kind"], &format!("must be {}", call.resource.kind));
        let kind = new["kind"].as_str().unwrap_or_default();
        return Err(ApiError::invalid(crate::error::Subject { kind, ..subject }, name, &[cause]));
    }
    if new["apiVersion"] != old["apiVersion"] {
        let cause =
            Cause::invalid("apiVersion", &new["apiVersion"], &format!("must be {}", call.resource.api_version()));
        return Err(ApiError::invalid(subject, name, &[cause]));
    }
    Ok(())
}

/// Reads the applied configuration and checks what an apply may say.
fn configuration(call: &Call, bytes: &Bytes, subresource: &str) -> ApiResult<Value> {
    let mut config = body::yaml(bytes)?.value;
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding YAML: the applied configuration is not an object"));
    }
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    if text("kind").is_empty() || text("apiVersion").is_empty() {
        return Err(ApiError::bad_request(
            "error decoding patch: Object 'Kind' or 'apiVersion' is missing in the applied configuration",
        ));
    }
    let resource = &call.resource;
    if text("apiVersion") != resource.api_version() || text("kind") != &*resource.kind {
        return Err(ApiError::bad_request(format!(
            "the applied configuration is {}, Kind={}, the path names {}, Kind={}",
            text("apiVersion"),
            text("kind"),
            resource.api_version(),
            resource.kind
        )));
    }
    if config["metadata"].get("managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if config["metadata"].is_null() {
        config["metadata"] = json!({});
    }
    let name = meta::text(&config, "name");
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    let written = meta::text(&config, "namespace").to_owned();
    write::check_namespace(call, &mut config)?;
    // Nulls of metadata are absent: templates write `creationTimestamp: null`.
    schema::drop_nulls(&mut config["metadata"], None);
    if !resource.is_custom() {
        schema::drop_nulls(&mut config, Some(&resource.schema));
    }
    if let Some(path) = typed::undeclared(&config, &resource.schema, "") {
        return Err(ApiError::reasonless(format!(
            "failed to create typed patch object ({written}/{}; {}, Kind={}): {path}: field not declared in schema",
            call.target.name,
            resource.api_version(),
            resource.kind
        )));
    }
    if subresource == "status"
        && let Some(members) = config.as_object_mut()
    {
        members.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    }
    Ok(config)
}

async fn apply(call: Call, bytes: &Bytes, subresource: &str, dry_run: bool) -> ApiResult<Response> {
    let resource = call.resource.clone();
    let config = configuration(&call, bytes, subresource)?;
    let force = call.query.flag("force");
    let manager = call.manager();
    let version = resource.api_version();
    let pinned = meta::text(&config, "resourceVersion").to_owned();
    for _ in 0..RETRIES {
        let Ok(current) = call.current() else {
            if !subresource.is_empty() || !pinned.is_empty() {
                return Err(ApiError::not_found(resource.subject(), &call.target.name));
            }
            if meta::text(&config, "name").is_empty() {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({} based on URL) was undeterminable: name must be provided",
                    call.target.name
                )));
            }
            let mut object = config.clone();
            // Validation of the metadata's shape is the decoder's in the real server.
            meta::normalise(&mut object, &mut Vec::new())?;
            let made = create::store(&call, object, dry_run, Some(&config)).await;
            match made {
                Err(error) if error.reason == "AlreadyExists" => continue,
                other => return other,
            }
        };
        if !pinned.is_empty() && pinned != current.revision.to_string() {
            return Err(ApiError::conflict(resource.subject(), &call.target.name));
        }
        let old = view::value(&resource, &current);
        let writer = write::writer(&call, &manager, subresource, &version);
        let mut config = config.clone();
        meta::remove(&mut config, "resourceVersion");
        let mut new = manage::apply(Some(&old), &config, &resource.schema, &writer, force, resource.status)?;
        let managed = new["metadata"].get("managedFields").cloned();
        meta::normalise(&mut new, &mut Vec::new())?;
        write::finish(&call, &mut new, Some(&old), subresource, false)?;
        if let Some(managed) = managed {
            meta::set(&mut new, "managedFields", managed);
        }
        if dry_run {
            meta::keep(&mut new, &old, "resourceVersion");
            return call.value(StatusCode::OK, new);
        }
        if let Attempt::Done(object) = write::commit_update(&call, &current, &old, new).await? {
            return call.object(StatusCode::OK, &object);
        }
    }
    Err(ApiError::conflict(resource.subject(), &call.target.name))
}
