//! What a CRD's schema must look like: structural, with defaults that hold.

use serde_json::Value;

use super::{compile, join, validate};
use crate::error::Cause;

/// Adds what is wrong with the schema at `path`.
pub(crate) fn check(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if schema["type"].as_str() != Some("object") {
        causes.push(Cause::invalid(format!("{path}.type"), &schema["type"], "must be object at the root"));
    }
    let before = causes.len();
    node(schema, path, true, causes);
    if causes.len() == before {
        match compile(schema, path) {
            Ok(_) => defaults(schema, path, causes),
            Err(problems) => causes.extend(problems),
        }
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema[name].as_bool().unwrap_or(false)
}

fn node(schema: &Value, path: &str, root: bool, causes: &mut Vec<Cause>) {
    let kind = schema["type"].as_str().unwrap_or_default();
    let untyped = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if kind.is_empty() && !untyped {
        let what = if path.ends_with(".items") {
            "must not be empty for specified array items"
        } else if root {
            "must not be empty at the root"
        } else {
            "must not be empty for specified object fields"
        };
        causes.push(Cause::required(format!("{path}.type"), what));
    }
    if schema.get("$ref").is_some() {
        causes.push(Cause::forbidden(format!("{path}.$ref"), "$ref is not supported"));
    }
    if flag(schema, "uniqueItems") {
        causes.push(Cause::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let has_properties = schema["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    let additional = &schema["additionalProperties"];
    if has_properties && (additional.is_object() || additional.as_bool() == Some(true)) {
        causes.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if additional.as_bool() == Some(false) {
        causes.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties cannot be set to false",
        ));
    }
    if kind == "array" && !schema["items"].is_object() {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if schema["x-kubernetes-list-type"].as_str() == Some("map") {
        list_map(schema, path, causes);
    }
    if flag(schema, "x-kubernetes-embedded-resource") && kind != "object" {
        causes.push(Cause::invalid(
            format!("{path}.type"),
            &schema["type"],
            "must be object if x-kubernetes-embedded-resource is true",
        ));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        node(property, &format!("{}[{name}]", join(path, "properties")), false, causes);
    }
    if schema["items"].is_object() {
        node(&schema["items"], &join(path, "items"), false, causes);
    }
    if additional.is_object() {
        node(additional, &join(path, "additionalProperties"), false, causes);
    }
}

/// A list whose items are told apart by some of their properties must require these, or give them defaults.
fn list_map(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    if keys.is_empty() {
        causes.push(Cause::required(
            format!("{path}.x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    for key in keys.iter().filter_map(Value::as_str) {
        let known = schema["items"]["properties"].get(key).is_some();
        let bound =
            schema["items"]["required"].as_array().is_some_and(|required| required.iter().any(|name| name == key))
                || schema["items"]["properties"][key].get("default").is_some();
        if !known {
            causes.push(Cause::invalid(
                format!("{path}.x-kubernetes-list-map-keys"),
                &schema["x-kubernetes-list-map-keys"],
                "entries must all be names of item properties",
            ));
        } else if !bound {
            causes.push(Cause::required(
                format!("{path}.items.properties[{key}].default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
    }
}

/// Every default must pass the schema it stands at.
fn defaults(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null())
        && let Ok(compiled) = compile(schema, path)
    {
        let mut filled = default.clone();
        super::apply_defaults(&mut filled, &compiled);
        for cause in validate(&filled, &compiled, None) {
            causes.push(Cause::new(
                cause.reason,
                format!("{path}.default{}{}", if cause.field.is_empty() { "" } else { "." }, cause.field),
                cause.message,
            ));
        }
        let mut dropped = Vec::new();
        super::prune(&mut filled, &compiled, "", &mut dropped);
        for name in dropped {
            causes.push(Cause::invalid(format!("{path}.default.{name}"), default, "must not have unknown fields"));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        defaults(property, &format!("{}[{name}]", join(path, "properties")), causes);
    }
    if schema["items"].is_object() {
        defaults(&schema["items"], &join(path, "items"), causes);
    }
    if schema["additionalProperties"].is_object() {
        defaults(&schema["additionalProperties"], &join(path, "additionalProperties"), causes);
    }
}
