//! What every write goes through: reading the object, filling in, checking, recording owners, committing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Call;
use crate::body::Parsed;
use crate::error::{ApiError, ApiResult, Cause};
use crate::fields::manage::{self, Writer};
use crate::meta;
use crate::registry::{Builtin, Resource, builtin};
use crate::request::FieldValidation;
use crate::schema;
use crate::store::object::{Draft, Object};
use crate::store::{Expect, Proposal, Refusal, Write};
use crate::view;

/// Largest stored object: etcd's limit, so that whatever is made here fits a cluster.
const OBJECT_LIMIT: usize = 1_572_864;
/// How often a write that pinned no revision is tried against a newer state.
pub(super) const RETRIES: usize = 8;

pub(super) fn writer<'a>(call: &Call, manager: &'a str, subresource: &'a str, version: &'a str) -> Writer<'a> {
    Writer { manager, subresource, api_version: version, now: call.now }
}

/// Checks that the body is of the kind the path names.
pub(super) fn check_kind(resource: &Resource, value: &mut Value) -> ApiResult<()> {
    let Some(members) = value.as_object_mut() else {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
    let expected = resource.api_version();
    let lenient = !resource.is_custom() && version.is_empty() && kind.is_empty();
    if !lenient && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !lenient && kind != *resource.kind {
        if resource.is_custom() && !kind.is_empty() {
            let name = members.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default();
            let cause = Cause::invalid("kind", &json!(kind), &format!("must be {}", resource.kind));
            let subject = crate::error::Subject { kind: &kind, ..resource.subject() };
            return Err(ApiError::invalid(subject, name, &[cause]));
        }
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is registered",
            resource.kind
        )));
    }
    members.insert("apiVersion".into(), expected.into());
    members.insert("kind".into(), json!(resource.kind));
    Ok(())
}

/// Drops fields that the kind does not know, and reports them as the client asked. The value is what the client sent.
pub(super) fn clean(call: &mut Call, parsed: Parsed, validation: FieldValidation) -> ApiResult<Value> {
    let Parsed { mut value, duplicates } = parsed;
    let unknown = drop_unknown(&call.resource, &mut value)?;
    complain(call, validation, &duplicates, &unknown, None)?;
    Ok(value)
}

/// Drops unknown members and returns their paths.
pub(super) fn drop_unknown(resource: &Resource, value: &mut Value) -> ApiResult<Vec<String>> {
    let mut unknown = Vec::new();
    meta::normalise(value, &mut unknown)?;
    if !resource.is_custom() {
        schema::drop_nulls(value, Some(&resource.schema));
    }
    schema::prune(value, &resource.schema, "", &mut unknown);
    unknown.sort();
    if let Some(kind) = resource.builtin {
        let wrong = schema::validate(value, &resource.schema, None)
            .into_iter()
            .find(|cause| cause.reason == "FieldValueTypeInvalid");
        let problem = wrong
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .or_else(|| builtin::bad_micro_time(kind, value))
            .or_else(|| builtin::bad_base64(kind, value));
        if let Some(problem) = problem {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {problem}",
                resource.kind, resource.version, resource.kind
            )));
        }
    }
    Ok(unknown)
}

/// Refuses or warns of duplicate and unknown fields. `patch` is the name of the object if a patch contained them.
pub(super) fn complain(
    call: &mut Call,
    validation: FieldValidation,
    duplicates: &[String],
    unknown: &[String],
    patch: Option<&str>,
) -> ApiResult<()> {
    if validation == FieldValidation::Ignore {
        return Ok(());
    }
    let texts: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")))
        .collect();
    if texts.is_empty() {
        return Ok(());
    }
    if validation == FieldValidation::Warn {
        call.warnings.extend(texts);
        return Ok(());
    }
    let text = format!("strict decoding error: {}", texts.join(", "));
    Err(match patch {
        Some(name) => {
            let cause = Cause::invalid("patch", &json!(name), &text);
            ApiError::invalid(call.resource.subject(), name, &[cause])
        }
        None => ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {text}",
            call.resource.kind, call.resource.version, call.resource.kind
        )),
    })
}

/// Everything but metadata and status: what `generation` counts.
fn desired(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
}

fn same_desired(resource: &Resource, old: &Value, new: &Value) -> bool {
    desired(old).eq(desired(new)) && (resource.status || old.get("status") == new.get("status"))
}

/// Turns the new state of an object into what is stored: defaults, server-set fields, generation, owners, validation. `old` is the previous
/// state in this version; `None` for a create.
pub(super) fn finish(
    call: &Call,
    new: &mut Value,
    old: Option<&Value>,
    subresource: &str,
    record: bool,
) -> ApiResult<()> {
    let resource = &call.resource;
    if let Some(old) = old {
        keep_what_is_not_written(resource, new, old, subresource);
        for name in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "name",
            "namespace",
        ] {
            meta::keep(new, old, name);
        }
    }
    if resource.is_custom() {
        schema::apply_defaults(new, &resource.schema);
    }
    if let Some(kind) = resource.builtin
        && subresource.is_empty()
    {
        builtin::fill_in(kind, new);
    }
    // Owners are recorded for what the client and the defaults set, not for what the kind's own rules add afterwards.
    if record {
        let manager = call.manager();
        let version = resource.api_version();
        manage::record_update(old, new, &resource.schema, &writer(call, &manager, subresource, &version));
    }
    if let Some(kind) = resource.builtin
        && subresource.is_empty()
    {
        builtin::prepare(kind, new, old);
    }
    if resource.generation
        && let Some(old) = old
        && !same_desired(resource, old, new)
    {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta::set(new, "generation", json!(generation));
    }
    check(resource, new, old, subresource)
}

/// The endpoint writes its own part only.
fn keep_what_is_not_written(resource: &Resource, new: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "" if resource.status => copy_member(new, old, "status"),
        "status" => {
            let status = new.get("status").cloned();
            let managed = new["metadata"].get("managedFields").cloned();
            *new = old.clone();
            if let (Some(managed), false) = (managed, new["metadata"].is_null()) {
                meta::set(new, "managedFields", managed);
            }
            match status {
                Some(status) => new["status"] = status,
                None => {
                    if let Some(members) = new.as_object_mut() {
                        members.remove("status");
                    }
                }
            }
        }
        "finalize" => {
            let finalizers = new["spec"].get("finalizers").cloned();
            *new = old.clone();
            if let Some(spec) = new["spec"].as_object_mut() {
                spec.remove("finalizers");
                if let Some(finalizers) = finalizers {
                    spec.insert("finalizers".into(), finalizers);
                }
            }
        }
        _ => {}
    }
    // A namespace's own finalizers are changed only through /finalize.
    if subresource.is_empty() && resource.builtin == Some(Builtin::Namespace) {
        copy_member(new, old, "spec");
    }
}

fn copy_member(to: &mut Value, from: &Value, name: &str) {
    match from.get(name) {
        Some(value) => to[name] = value.clone(),
        None => {
            if let Some(members) = to.as_object_mut() {
                members.remove(name);
            }
        }
    }
}

fn check(resource: &Resource, new: &Value, old: Option<&Value>, subresource: &str) -> ApiResult<()> {
    let mut causes = Vec::new();
    let unchanged = old.is_some_and(|old| old["metadata"] == new["metadata"]);
    if !unchanged && (subresource.is_empty() || old.is_none()) {
        causes.extend(meta::problems(new, resource.names));
        if let Some(old) = old {
            causes.extend(meta::new_finalizers(old, new));
        }
    }
    if let Some(scale) = &resource.scale {
        let replicas = scale.spec_replicas.split('.').fold(new, |at, name| &at[name]);
        if replicas.as_i64().is_some_and(|count| count < 0) {
            let field = format!(".{}", scale.spec_replicas);
            causes.push(Cause::invalid(field, replicas, "should be a non-negative integer"));
        }
    }
    schema::validate_object(new, &resource.schema, old, &mut causes);
    if let Some(kind) = resource.builtin
        && (subresource.is_empty() || kind == Builtin::Lease)
    {
        causes.extend(builtin::problems(kind, new, old));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(resource.subject(), meta::text(new, "name"), &causes))
}

/// What came of an attempt to write.
pub(crate) enum Attempt {
    Done(Arc<Object>),
    /// Somebody else was faster.
    Changed,
}

/// Commits `new` in place of `old`, or removes the object if it was under deletion and nothing holds it any more.
pub(crate) async fn commit_update(call: &Call, old: &Arc<Object>, old_view: &Value, new: Value) -> ApiResult<Attempt> {
    let same = {
        let mut candidate = new.clone();
        meta::set(&mut candidate, "resourceVersion", json!(old.revision.to_string()));
        candidate == *old_view
    };
    if same {
        return Ok(Attempt::Done(old.clone()));
    }
    let gone = is_finished(&call.resource, &new);
    let draft = draft(call, new)?;
    if !gone {
        return propose(call, &old.key.name, Expect::Revision(old.revision), Write::Put(draft)).await;
    }
    // Watchers see the last stored state go; the writer gets the state that it asked for.
    let key = old.key.clone();
    Ok(match propose(call, &key.name, Expect::Revision(old.revision), Write::Delete).await? {
        Attempt::Done(last) => Attempt::Done(Arc::new(draft.commit(key, last.revision))),
        Attempt::Changed => Attempt::Changed,
    })
}

/// Whether deletion has nothing to wait for.
fn is_finished(resource: &Resource, object: &Value) -> bool {
    if !meta::is_deleting(object) || !meta::finalizers(object).is_empty() {
        return false;
    }
    match resource.builtin {
        Some(Builtin::Namespace) => object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty),
        _ => object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0,
    }
}

pub(super) fn draft(call: &Call, view: Value) -> ApiResult<Draft> {
    let stored = view::to_storage(&call.api.registry.table(), &call.resource, view);
    let draft = Draft::new(&stored, &call.resource.fields);
    if draft.len() > OBJECT_LIMIT {
        return Err(ApiError::reasonless("etcdserver: request is too large"));
    }
    Ok(draft)
}

pub(super) async fn propose(call: &Call, name: &str, expect: Expect, write: Write) -> ApiResult<Attempt> {
    let needs_namespace =
        (expect == Expect::Absent && call.resource.namespaced).then(|| call.target.namespace.as_str().into());
    let proposal = Proposal { address: call.address(name), expect, write, needs_namespace };
    match call.api.objects.propose(proposal).await {
        Ok(object) => Ok(Attempt::Done(object)),
        Err(refusal) => refused(call, name, refusal),
    }
}

fn refused(call: &Call, name: &str, refusal: Refusal) -> ApiResult<Attempt> {
    let subject = call.resource.subject();
    match refusal {
        Refusal::Changed => Ok(Attempt::Changed),
        Refusal::Exists(object) => Err(ApiError::already_exists(subject, name, object.facts.deleting)),
        Refusal::NamespaceMissing => {
            let namespaces = crate::error::Subject { group: "", plural: "namespaces", kind: "Namespace" };
            Err(ApiError::not_found(namespaces, &call.target.namespace))
        }
        Refusal::NamespaceTerminating => Err(ApiError::namespace_terminating(subject, name, &call.target.namespace)),
        Refusal::Unavailable(why) => Err(ApiError::unavailable(why)),
    }
}

/// `metadata.namespace` of the body is that of the path, or absent.
pub(super) fn check_namespace(call: &Call, value: &mut Value) -> ApiResult<()> {
    let written = meta::text(value, "namespace");
    if !written.is_empty() && written != call.target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if call.resource.namespaced {
        meta::set(value, "namespace", json!(call.target.namespace));
    }
    Ok(())
}
