//! Dropping what a schema does not know.

use std::sync::Arc;

use serde_json::Value;

use super::{Schema, join};

/// Removes unknown members and names them in `dropped`.
pub(crate) fn prune(value: &mut Value, schema: &Schema, path: &str, dropped: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if !schema.is_open() {
                members.retain(|name, _| {
                    let known = schema.member(name).is_some()
                        || schema.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                    if !known {
                        dropped.push(join(path, name));
                    }
                    known
                });
            }
            for (name, member) in members.iter_mut() {
                if let Some(schema) = schema.member(name) {
                    prune(member, schema, &join(path, name), dropped);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(item, schema, &format!("{path}[{index}]"), dropped);
                }
            }
        }
        _ => {}
    }
}

/// Removes members that are null: a builtin kind's decoder reads null as absent.
pub(crate) fn drop_nulls(value: &mut Value, schema: Option<&Arc<Schema>>) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            for (name, member) in members.iter_mut() {
                match schema {
                    Some(schema) if schema.atomic && schema.preserve_unknown => {}
                    Some(schema) => drop_nulls(member, schema.member(name)),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                drop_nulls(item, schema.and_then(|schema| schema.items.as_ref()));
            }
        }
        _ => {}
    }
}
