//! DELETE of one object.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use chrono::{SecondsFormat, TimeDelta};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::write::{self, Attempt, RETRIES};
use super::{Call, read};
use crate::body;
use crate::error::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::registry::Builtin;
use crate::store::object::Object;
use crate::store::{Expect, Write};
use crate::view;

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

/// What becomes of the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
    pub(crate) dry_run: bool,
}

impl Options {
    /// The body wins over the query.
    pub(super) fn read(call: &Call, media: &str, bytes: &[u8]) -> ApiResult<Self> {
        let body = if bytes.iter().all(u8::is_ascii_whitespace) { json!({}) } else { body::parse(media, bytes)?.value };
        let mut options = Self { dry_run: call.query.dry_run("DeleteOptions")?, ..Self::default() };
        options.grace = body["gracePeriodSeconds"].as_i64().or(call.query.number("gracePeriodSeconds")?);
        let text = |value: &Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
        options.uid = text(&body["preconditions"]["uid"]);
        options.revision = text(&body["preconditions"]["resourceVersion"]);
        let policy = text(&body["propagationPolicy"])
            .or_else(|| call.query.get("propagationPolicy").map(str::to_owned).filter(|text| !text.is_empty()));
        options.propagation = match policy.as_deref() {
            None => match body["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                _ => None,
            },
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let cause = Cause::new(
                    "FieldValueNotSupported",
                    "propagationPolicy",
                    format!(
                        "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                    ),
                );
                return Err(ApiError::invalid_options("DeleteOptions", &[cause]));
            }
        };
        if let Some(grace) = options.grace.filter(|grace| *grace < 0) {
            let cause = Cause::invalid("gracePeriodSeconds", &json!(grace), "must be greater than or equal to 0");
            return Err(ApiError::invalid_options("DeleteOptions", &[cause]));
        }
        for value in body["dryRun"].as_array().into_iter().flatten() {
            if value != "All" {
                let cause = Cause::new(
                    "FieldValueNotSupported",
                    "dryRun",
                    format!("Unsupported value: {}: supported values: \"All\"", body["dryRun"]),
                );
                return Err(ApiError::invalid_options("DeleteOptions", &[cause]));
            }
            options.dry_run = true;
        }
        Ok(options)
    }

    fn check(&self, call: &Call, object: &Object) -> ApiResult<()> {
        let name = &object.key.name;
        if let Some(uid) = self.uid.as_ref().filter(|uid| **uid != *object.facts.uid) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                object.facts.uid
            );
            return Err(ApiError::precondition(call.resource.subject(), name, &why));
        }
        if let Some(revision) = self.revision.as_ref().filter(|revision| **revision != object.revision.to_string()) {
            let why = format!(
                "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object might have been modified",
                object.revision
            );
            return Err(ApiError::precondition(call.resource.subject(), name, &why));
        }
        Ok(())
    }
}

/// What a deletion came to.
pub(super) enum Outcome {
    /// The object is gone; its last state.
    Gone(Arc<Object>),
    /// Something holds it: a finalizer, or a pod's time to end.
    Waiting(Arc<Object>),
    /// A dry run: what would be answered.
    Would(Value, bool),
}

pub(super) async fn delete(call: Call, body: Body) -> ApiResult<Response> {
    let (media, bytes) = read(&call, body).await?;
    let options = Options::read(&call, &media, &bytes)?;
    let current = call.current()?;
    let (object, gone) = match remove(&call, current, &options).await? {
        Outcome::Gone(object) => {
            let mut object = view::value(&call.resource, &object);
            // A pod records that its grace period was zero.
            if call.resource.builtin == Some(Builtin::Pod) && !meta::is_deleting(&object) {
                let stamp = call.now.to_rfc3339_opts(SecondsFormat::Secs, true);
                meta::set(&mut object, "deletionTimestamp", json!(stamp));
                meta::set(&mut object, "deletionGracePeriodSeconds", json!(0));
            }
            (object, true)
        }
        Outcome::Waiting(object) => return call.object(StatusCode::OK, &object),
        Outcome::Would(object, gone) => (object, gone),
    };
    if !gone || call.resource.delete_answers_object() {
        return call.value(StatusCode::OK, object);
    }
    let mut details = Map::new();
    details.insert("name".into(), json!(call.target.name));
    if !call.resource.group.is_empty() {
        details.insert("group".into(), json!(call.resource.group));
    }
    details.insert("kind".into(), json!(call.resource.plural));
    details.insert("uid".into(), object["metadata"]["uid"].clone());
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    Ok(call.plain(StatusCode::OK, &status))
}

/// Deletes `current`, or marks it for deletion.
pub(super) async fn remove(call: &Call, mut current: Arc<Object>, options: &Options) -> ApiResult<Outcome> {
    let name = current.key.name.clone();
    for _ in 0..RETRIES {
        options.check(call, &current)?;
        let old = view::value(&call.resource, &current);
        let mut new = old.clone();
        let waits = mark(call, &mut new, options);
        if options.dry_run {
            return Ok(Outcome::Would(new, !waits));
        }
        let attempt = if waits {
            match commit_mark(call, &current, &old, new).await? {
                Attempt::Done(object) => return Ok(Outcome::Waiting(object)),
                Attempt::Changed => Attempt::Changed,
            }
        } else {
            write::propose(call, &name, Expect::Revision(current.revision), Write::Delete).await?
        };
        match attempt {
            Attempt::Done(object) => return Ok(Outcome::Gone(object)),
            Attempt::Changed => {
                current = call
                    .api
                    .objects
                    .get(&call.resource.collection, &call.address(&name).key)
                    .ok_or_else(|| ApiError::not_found(call.resource.subject(), &name))?;
            }
        }
    }
    Err(ApiError::conflict(call.resource.subject(), &name))
}

async fn commit_mark(call: &Call, current: &Arc<Object>, old: &Value, new: Value) -> ApiResult<Attempt> {
    if *old == new {
        return Ok(Attempt::Done(current.clone()));
    }
    let draft = write::draft(call, new)?;
    write::propose(call, &current.key.name, Expect::Revision(current.revision), Write::Put(draft)).await
}

/// Marks the object for deletion. False if nothing holds it.
fn mark(call: &Call, object: &mut Value, options: &Options) -> bool {
    let resource = &call.resource;
    let grace = grace(call, object, options.grace);
    propagate(object, options.propagation);
    let held = !meta::finalizers(object).is_empty()
        || resource.builtin == Some(Builtin::Namespace)
            && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if !held && grace == 0 {
        return false;
    }
    let stamp = (call.now + TimeDelta::seconds(grace)).to_rfc3339_opts(SecondsFormat::Secs, true);
    if meta::is_deleting(object) {
        // A second deletion can only shorten the time that is left.
        let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace < left {
            meta::set(object, "deletionTimestamp", json!(stamp));
            meta::set(object, "deletionGracePeriodSeconds", json!(grace));
        }
        return true;
    }
    meta::set(object, "deletionTimestamp", json!(stamp));
    // Namespaces and CRDs have their own way of deletion, which records less.
    if !matches!(resource.builtin, Some(Builtin::Namespace | Builtin::CustomResourceDefinition)) {
        meta::set(object, "deletionGracePeriodSeconds", json!(grace));
    }
    if resource.builtin != Some(Builtin::CustomResourceDefinition)
        && let Some(generation) = object["metadata"]["generation"].as_i64()
    {
        meta::set(object, "generation", json!(generation + 1));
    }
    if resource.builtin == Some(Builtin::Namespace) {
        object["status"]["phase"] = json!("Terminating");
    }
    true
}

/// Grace period of a pod in seconds; no other kind has one.
fn grace(call: &Call, object: &Value, asked: Option<i64>) -> i64 {
    if call.resource.builtin != Some(Builtin::Pod) {
        return 0;
    }
    let unbound = object["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unbound || ended {
        return 0;
    }
    asked.unwrap_or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30)).max(0)
}

fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = meta::finalizers(object)
        .into_iter()
        .filter(|name| !matches!(*name, FOREGROUND | ORPHAN))
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    if finalizers.is_empty() {
        meta::remove(object, "finalizers");
    } else {
        meta::set(object, "finalizers", json!(finalizers));
    }
}
