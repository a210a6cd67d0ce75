//! Checking a value against its schema, with kube-apiserver's causes.

use std::collections::HashSet;

use serde_json::Value;

use super::{Checks, Kind, ListKind, Schema, cel, format, join};
use crate::error::Cause;

/// Validates a whole object, except its metadata. CEL rules are evaluated unless the errors in `causes`, or those found here, make the
/// object's shape uncertain.
pub(crate) fn validate_object(value: &Value, schema: &Schema, old: Option<&Value>, causes: &mut Vec<Cause>) {
    node(value, schema, "", old, causes);
    let blocking = causes.iter().any(|cause| {
        matches!(
            cause.reason,
            "FieldValueRequired"
                | "FieldValueNotSupported"
                | "FieldValueTypeInvalid"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
        )
    });
    if !blocking {
        rules(value, schema, "", old, causes, &mut cel::Budget::default());
    } else if has_rules(schema) {
        causes.push(Cause::new(
            "FieldValueInvalid",
            "<nil>",
            "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
    }
}

/// Checks `value`. What an update left as it was (`old`) passes even if the schema has become stricter since.
pub(crate) fn validate(value: &Value, schema: &Schema, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    validate_object(value, schema, old, &mut causes);
    causes
}

fn has_rules(schema: &Schema) -> bool {
    !schema.rules.is_empty()
        || schema.properties.values().any(|property| has_rules(property))
        || schema.items.as_deref().is_some_and(has_rules)
        || schema.additional.as_deref().is_some_and(has_rules)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn has_kind(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => value.is_number() && is_whole(value),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
        Kind::IntOrString => value.is_string() || value.is_number() && is_whole(value),
        Kind::Quantity => value.is_string() || value.is_number(),
    }
}

fn node(value: &Value, schema: &Schema, path: &str, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old == Some(value) {
        return;
    }
    if value.is_null() && (schema.nullable || schema.kind == Kind::Any && schema.checks.is_none()) {
        return;
    }
    if !has_kind(value, schema.kind) {
        let found = type_name(value);
        causes.push(Cause::new(
            "FieldValueTypeInvalid",
            path,
            format!("Invalid value: \"{found}\": {path} in body must be of type {}: \"{found}\"", schema.kind.name()),
        ));
        if let Some(checks) = &schema.checks {
            supported(value, checks, path, causes);
        }
        return;
    }
    match value {
        Value::Object(members) => {
            for name in &schema.required {
                if !members.contains_key(name) {
                    causes.push(Cause::required(join(path, name), ""));
                }
            }
            for (name, member) in members {
                // Metadata has its own rules, see `meta`.
                if path.is_empty() && name == "metadata" && schema.properties.contains_key("apiVersion") {
                    continue;
                }
                if let Some(schema) = schema.member(name) {
                    node(member, schema, &join(path, name), old.and_then(|old| old.get(name)), causes);
                }
            }
        }
        Value::Array(items) => {
            duplicates(items, &schema.list, path, causes);
            if let Some(item_schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(old, item, &schema.list));
                    node(item, item_schema, &format!("{path}[{index}]"), old, causes);
                }
            }
        }
        _ => {}
    }
    if let Some(checks) = &schema.checks {
        check(value, checks, path, causes);
    }
}

/// The item of the old list that `item` is the new state of; only keyed lists have one.
fn counterpart<'a>(old: &'a Value, item: &Value, list: &ListKind) -> Option<&'a Value> {
    let ListKind::Map(keys) = list else { return None };
    old.as_array()?.iter().find(|candidate| keys.iter().all(|key| candidate.get(key) == item.get(key)))
}

fn duplicates(items: &[Value], list: &ListKind, path: &str, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let (identity, shown) = match list {
            ListKind::Atomic => return,
            ListKind::Set => (item.to_string(), item.clone()),
            ListKind::Map(keys) => {
                let key: serde_json::Map<String, Value> =
                    keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect();
                let key = Value::Object(key);
                (key.to_string(), key)
            }
        };
        if !seen.insert(identity) {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), &shown));
        }
    }
}

fn supported(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    if !checks.enumeration.is_empty() && !checks.enumeration.contains(value) {
        let supported: Vec<String> = checks.enumeration.iter().map(ToString::to_string).collect();
        causes.push(Cause::new(
            "FieldValueNotSupported",
            path,
            format!("Unsupported value: {value}: supported values: {}", supported.join(", ")),
        ));
    }
}

fn check(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    supported(value, checks, path, causes);
    match value {
        Value::Number(_) => numbers(value, checks, path, causes),
        Value::String(text) => strings(value, text, checks, path, causes),
        Value::Array(items) => {
            counts("items", items.len(), checks.min_items, checks.max_items, path, causes);
        }
        Value::Object(members) => {
            counts("properties", members.len(), checks.min_properties, checks.max_properties, path, causes);
        }
        Value::Null | Value::Bool(_) => {}
    }
    junctors(value, checks, path, causes);
}

fn counts(noun: &str, count: usize, min: Option<u64>, max: Option<u64>, path: &str, causes: &mut Vec<Cause>) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(min) = min.filter(|min| count < *min) {
        causes.push(Cause::invalid(
            path,
            &Value::from(count),
            &format!("{path} in body should have at least {min} {noun}"),
        ));
    }
    if let Some(max) = max.filter(|max| count > *max) {
        causes.push(Cause::new("FieldValueTooMany", path, format!("Too many: {count}: must have at most {max} items")));
    }
}

fn numbers(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let mut complain =
        |what: String| causes.push(Cause::invalid(path, value, &format!("{path} in body should be {what}")));
    match checks.minimum {
        Some((bound, true)) if number <= bound => complain(format!("greater than {bound}")),
        Some((bound, false)) if number < bound => complain(format!("greater than or equal to {bound}")),
        _ => {}
    }
    match checks.maximum {
        Some((bound, true)) if number >= bound => complain(format!("less than {bound}")),
        Some((bound, false)) if number > bound => complain(format!("less than or equal to {bound}")),
        _ => {}
    }
    if let Some(factor) = checks.multiple_of
        && factor != 0.0
        && (number / factor).fract() != 0.0
    {
        complain(format!("a multiple of {factor}"));
    }
}

fn strings(value: &Value, text: &str, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        causes.push(Cause::new("FieldValueTooLong", path, format!("Too long: may not be more than {max} bytes")));
    }
    if let Some(min) = checks.min_length.filter(|min| length < *min) {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be at least {min} chars long")));
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should match '{pattern}'")));
    }
    if let Some(format) = checks.format.as_ref().filter(|format| !format::matches(format, text)) {
        causes.push(Cause::invalid(path, value, &format!("{path} in body must be of type {format}: {value}")));
    }
}

fn passes(value: &Value, schema: &Schema) -> bool {
    let mut causes = Vec::new();
    node(value, schema, "", None, &mut causes);
    causes.is_empty()
}

fn junctors(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    for schema in &checks.all_of {
        node(value, schema, path, None, causes);
    }
    let shown = Value::String(String::new());
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(|schema| passes(value, schema)) {
        causes.push(Cause::invalid(path, &shown, &format!("{path:?} must validate at least one schema (anyOf)")));
    }
    if !checks.one_of.is_empty() {
        let count = checks.one_of.iter().filter(|schema| passes(value, schema)).count();
        if count != 1 {
            let found =
                if count == 0 { "Found none valid".to_owned() } else { format!("Found {count} valid alternatives") };
            causes.push(Cause::invalid(
                path,
                &shown,
                &format!("{path:?} must validate one and only one schema (oneOf). {found}"),
            ));
        }
    }
    if checks.not.as_ref().is_some_and(|schema| passes(value, schema)) {
        causes.push(Cause::invalid(path, &shown, &format!("{path:?} must not validate the schema (not)")));
    }
}

fn rules(
    value: &Value,
    schema: &Schema,
    path: &str,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
    budget: &mut cel::Budget,
) {
    if value.is_null() {
        return;
    }
    for rule in &schema.rules {
        // An unchanged value passed this rule before, or is accepted as it was.
        if old == Some(value) && !rule.is_transition() {
            continue;
        }
        if let Some(cause) = rule.check(value, old, schema, path, budget) {
            causes.push(cause);
        }
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if path.is_empty() && name == "metadata" && schema.properties.contains_key("apiVersion") {
                    continue;
                }
                if let Some(schema) = schema.member(name) {
                    rules(member, schema, &join(path, name), old.and_then(|old| old.get(name)), causes, budget);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(old, item, &schema.list));
                    rules(item, item_schema, &format!("{path}[{index}]"), old, causes, budget);
                }
            }
        }
        _ => {}
    }
}
