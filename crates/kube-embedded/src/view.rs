//! Objects between the form they are stored in and the version a client asked for.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::output::negotiate::{Form, Shape};
use crate::output::table::{self, Include};
use crate::registry::{Builtin, Resource, Table};
use crate::schema;
use crate::store::object::Object;

/// Whether stored bytes can be sent as they are.
pub(crate) fn is_stored_form(resource: &Resource) -> bool {
    resource.storage
}

/// A stored value as this version shows it: conversion None changes apiVersion only, and the version's own schema
/// prunes and fills in.
pub(crate) fn from_storage(resource: &Resource, mut value: Value) -> Value {
    if resource.storage {
        return value;
    }
    if resource.builtin == Some(Builtin::NewEvent) {
        crate::registry::events::from_core(&mut value);
        return value;
    }
    value["apiVersion"] = resource.api_version().into();
    schema::prune(&mut value, &resource.schema, "", &mut Vec::new());
    schema::apply_defaults(&mut value, &resource.schema);
    value
}

/// The other way, before storing.
pub(crate) fn to_storage(table: &Table, resource: &Resource, mut value: Value) -> Value {
    if resource.storage {
        return value;
    }
    if resource.builtin == Some(Builtin::NewEvent) {
        crate::registry::events::to_core(&mut value);
        return value;
    }
    if let Some(storage) = table.storage(&resource.collection) {
        value["apiVersion"] = storage.api_version().into();
        schema::prune(&mut value, &storage.schema, "", &mut Vec::new());
        schema::apply_defaults(&mut value, &storage.schema);
    }
    value
}

/// The object as parsed JSON of this version.
pub(crate) fn value(resource: &Resource, object: &Object) -> Value {
    from_storage(resource, object.value())
}

/// The object's JSON in this version.
pub(crate) fn json(resource: &Resource, object: &Object) -> Bytes {
    if is_stored_form(resource) { object.bytes.clone() } else { value(resource, object).to_string().into() }
}

/// What a single object looks like in the client's form.
pub(crate) fn shaped(resource: &Resource, value: Value, form: Form, include: Include, now: DateTime<Utc>) -> Value {
    match form.shape {
        Shape::Plain | Shape::PartialList => value,
        Shape::Partial => table::partial(&value),
        Shape::Table => {
            let mut metadata = Map::new();
            if let Some(revision) = value["metadata"].get("resourceVersion") {
                metadata.insert("resourceVersion".into(), revision.clone());
            }
            table::table(resource, &[value], Value::Object(metadata), include, true, now)
        }
    }
}

/// Appends the object as an item of a list: builtin kinds leave apiVersion and kind to the list.
pub(crate) fn write_item(bytes: &mut Vec<u8>, resource: &Resource, object: &Arc<Object>) {
    if is_stored_form(resource) {
        if resource.is_custom() {
            bytes.extend_from_slice(&object.bytes);
        } else {
            bytes.push(b'{');
            bytes.extend_from_slice(&object.tail());
        }
        return;
    }
    let mut value = value(resource, object);
    if !resource.is_custom()
        && let Some(members) = value.as_object_mut()
    {
        members.remove("apiVersion");
        members.remove("kind");
    }
    bytes.extend_from_slice(value.to_string().as_bytes());
}
