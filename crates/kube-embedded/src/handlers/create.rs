//! POST to a collection.

use axum::body::Body;
use axum::response::Response;
use chrono::SecondsFormat;
use http::StatusCode;
use serde_json::{Value, json};

use super::write::{self, Attempt};
use super::{Call, read};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::fields::manage;
use crate::meta;
use crate::store::{Expect, Write};

/// The same number of tries as in kube-apiserver for a generated name.
const NAMES: usize = 8;

pub(super) async fn create(mut call: Call, body: Body) -> ApiResult<Response> {
    if call.resource.namespaced && call.target.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let dry_run = call.query.dry_run("CreateOptions")?;
    let validation = call.query.field_validation("CreateOptions")?;
    let (media, bytes) = read(&call, body).await?;
    let mut parsed = body::parse(&media, &bytes)?;
    write::check_kind(&call.resource, &mut parsed.value)?;
    let mut object = write::clean(&mut call, parsed, validation)?;
    write::check_namespace(&call, &mut object)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::reasonless("resourceVersion should not be set on objects to be created"));
    }
    for finalizer in meta::finalizers(&object).into_iter().filter(|name| !name.contains('/')) {
        call.warnings.push(format!("metadata.finalizers: \"{finalizer}\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"));
    }
    let prefix = meta::text(&object, "generateName").to_owned();
    let generated = meta::text(&object, "name").is_empty() && !prefix.is_empty();
    for attempt in 1.. {
        if generated {
            let mut random = [0; 5];
            call.api.entropy.fill(&mut random);
            meta::set(&mut object, "name", json!(meta::generated_name(&prefix, random)));
        }
        match store(&call, object.clone(), dry_run, None).await {
            Err(error) if generated && error.reason == "AlreadyExists" && attempt < NAMES => {}
            other => return other,
        }
    }
    Err(ApiError::method_not_allowed())
}

/// Makes the object, whose metadata is normalised, and answers 201. `applied` has the ownership record of an apply.
pub(super) async fn store(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    applied: Option<&Value>,
) -> ApiResult<Response> {
    let resource = &call.resource;
    if resource.terminating {
        return Err(ApiError::forbidden(
            resource.subject(),
            meta::text(&object, "name"),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    let mut random = [0; 16];
    call.api.entropy.fill(&mut random);
    let uid = uuid::Builder::from_random_bytes(random).into_uuid();
    meta::set(&mut object, "uid", json!(uid.to_string()));
    meta::set(&mut object, "creationTimestamp", json!(call.now.to_rfc3339_opts(SecondsFormat::Secs, true)));
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
        meta::remove(&mut object, name);
    }
    if resource.generation {
        meta::set(&mut object, "generation", json!(1));
    }
    // Kinds with a status of their own begin without one, except nodes, which bring their status along.
    if resource.status
        && resource.builtin != Some(crate::registry::Builtin::Node)
        && let Some(members) = object.as_object_mut()
    {
        members.remove("status");
    }
    match applied {
        Some(config) => {
            write::finish(call, &mut object, None, "", false)?;
            let manager = call.manager();
            let version = resource.api_version();
            let writer = write::writer(call, &manager, "", &version);
            let owned = manage::apply(None, config, &resource.schema, &writer, false, resource.status)?;
            meta::keep(&mut object, &owned, "managedFields");
        }
        None => {
            meta::remove(&mut object, "managedFields");
            write::finish(call, &mut object, None, "", true)?;
        }
    }
    let name = meta::text(&object, "name").to_owned();
    if dry_run {
        if let Some(present) = call.api.objects.get(&resource.collection, &call.address(&name).key) {
            return Err(ApiError::already_exists(resource.subject(), &name, present.facts.deleting));
        }
        return call.value(StatusCode::CREATED, object);
    }
    let draft = write::draft(call, object)?;
    match write::propose(call, &name, Expect::Absent, Write::Put(draft)).await? {
        Attempt::Done(object) => call.object(StatusCode::CREATED, &object),
        Attempt::Changed => Err(ApiError::conflict(resource.subject(), &name)),
    }
}
