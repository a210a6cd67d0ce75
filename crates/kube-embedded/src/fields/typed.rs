//! Walking values under their schema: which fields are set, which differ, merging, removing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Set;
use crate::schema::{Kind, ListKind, Schema};

/// How a value takes part in merging.
enum Shape<'a> {
    /// One value, replaced whole.
    Leaf,
    Map(&'a Map<String, Value>),
    Set(&'a [Value]),
    Keyed(&'a [Value], &'a [String]),
}

fn shape<'a>(value: &'a Value, schema: &'a Schema) -> Shape<'a> {
    match value {
        Value::Object(members) if !schema.atomic => Shape::Map(members),
        Value::Array(items) => match &schema.list {
            ListKind::Atomic => Shape::Leaf,
            ListKind::Set => Shape::Set(items),
            ListKind::Map(keys) => Shape::Keyed(items, keys),
        },
        _ => Shape::Leaf,
    }
}

static OPEN: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::default);

fn member<'a>(schema: &'a Schema, name: &str) -> &'a Schema {
    schema.member(name).map_or(&*OPEN, |schema| &**schema)
}

fn item(schema: &Schema) -> &Schema {
    schema.items.as_deref().unwrap_or(&OPEN)
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The path element of an item of a keyed list; a missing key counts with its default.
fn key_of(value: &Value, keys: &[String], schema: &Schema) -> String {
    let identity: BTreeMap<&str, Value> = keys
        .iter()
        .filter_map(|key| {
            let default = || schema.properties.get(key).and_then(|schema| schema.default.clone());
            value.get(key).cloned().or_else(default).map(|value| (key.as_str(), value))
        })
        .collect();
    format!("k:{}", serde_json::to_string(&identity).unwrap_or_default())
}

fn value_element(value: &Value) -> String {
    format!("v:{value}")
}

/// The items of a list by their path element, in order.
fn elements<'a>(value: &'a Value, schema: &'a Schema) -> Option<Vec<(String, &'a Value)>> {
    match shape(value, schema) {
        Shape::Map(members) => Some(members.iter().map(|(name, value)| (field(name), value)).collect()),
        Shape::Set(items) => Some(items.iter().map(|value| (value_element(value), value)).collect()),
        Shape::Keyed(items, keys) => {
            let schema = item(schema);
            Some(items.iter().map(|value| (key_of(value, keys, schema), value)).collect())
        }
        Shape::Leaf => None,
    }
}

fn below<'a>(schema: &'a Schema, element: &str) -> &'a Schema {
    match element.strip_prefix("f:") {
        Some(name) => member(schema, name),
        None => item(schema),
    }
}

/// The fields that `value` sets: what an apply claims.
pub(crate) fn fields_of(value: &Value, schema: &Schema, set: &mut Set) {
    match elements(value, schema) {
        Some(elements) if !elements.is_empty() => {
            for (element, value) in elements {
                let schema = below(schema, &element);
                let is_item = !element.starts_with("f:");
                let child = set.child(element);
                if is_item {
                    child.owned = true;
                }
                if !is_item || value.is_object() {
                    fields_of(value, schema, child);
                }
            }
        }
        _ => set.owned = true,
    }
}

/// The members of a container, none of one that is absent; `None` for a leaf.
fn members_of<'a>(value: Option<&'a Value>, schema: &'a Schema) -> Option<Vec<(String, &'a Value)>> {
    value.map_or_else(|| Some(Vec::new()), |value| elements(value, schema))
}

/// What differs from `old` to `new`: added or changed fields, and removed ones.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, schema: &Schema, changed: &mut Set, removed: &mut Set) {
    if old == new {
        return;
    }
    let (Some(before), Some(after)) = (members_of(old, schema), members_of(new, schema)) else {
        match (old, new) {
            (Some(_), None) => removed.owned = true,
            _ => changed.owned = true,
        }
        // A container that becomes a leaf, or the other way round, loses or gains its members too.
        return;
    };
    if before.is_empty() && after.is_empty() {
        match (old, new) {
            (Some(_), None) => removed.owned = true,
            _ => changed.owned = true,
        }
        return;
    }
    let find = |list: &[(String, &Value)], element: &str| list.iter().position(|(name, _)| name == element);
    for (element, value) in &after {
        let previous = find(&before, element).map(|at| before[at].1);
        step(previous, Some(value), element, schema, old.is_some(), changed, removed);
    }
    for (element, value) in &before {
        if find(&after, element).is_none() {
            step(Some(value), None, element, schema, true, changed, removed);
        }
    }
    if old.is_none() {
        changed.owned = true;
    } else if new.is_none() {
        removed.owned = true;
    }
}

fn step(
    old: Option<&Value>,
    new: Option<&Value>,
    element: &str,
    schema: &Schema,
    in_object: bool,
    changed: &mut Set,
    removed: &mut Set,
) {
    let schema = below(schema, element);
    let (mut more, mut less) = (Set::default(), Set::default());
    let empty = if schema.kind == Kind::Array { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    let old = if old.is_none() && in_object && schema.always && element.starts_with("f:") { Some(&empty) } else { old };
    compare(old, new, schema, &mut more, &mut less);
    if !more.is_empty() {
        changed.child(element.to_owned()).union(&more);
    }
    if !less.is_empty() {
        removed.child(element.to_owned()).union(&less);
    }
}

/// `live` with what `config` says, merged as an apply merges.
pub(crate) fn merge(live: Option<&Value>, config: &Value, schema: &Schema) -> Value {
    let Some(live) = live else { return config.clone() };
    match (shape(live, schema), shape(config, schema)) {
        (Shape::Map(live), Shape::Map(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = merge(live.get(name), value, member(schema, name));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::Set(_), Shape::Set(_)) | (Shape::Keyed(..), Shape::Keyed(..)) => merge_lists(live, config, schema),
        _ => config.clone(),
    }
}

/// Items that only the live list has keep their place; the others follow the order of the applied list.
fn merge_lists(live: &Value, config: &Value, schema: &Schema) -> Value {
    let left = elements(live, schema).unwrap_or_default();
    let right = elements(config, schema).unwrap_or_default();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut rest = left.iter().peekable();
    for (element, value) in &right {
        while let Some((name, only_left)) = rest.peek() {
            if right.iter().any(|(other, _)| other == name) {
                break;
            }
            merged.push((*only_left).clone());
            rest.next();
        }
        if let Some((name, _)) = rest.peek()
            && right.iter().any(|(other, _)| other == name)
        {
            rest.next();
        }
        let counterpart = left.iter().find(|(name, _)| name == element).map(|(_, value)| *value);
        merged.push(merge(counterpart, value, item(schema)));
    }
    for (name, only_left) in rest {
        if !right.iter().any(|(other, _)| other == name) {
            merged.push((*only_left).clone());
        }
    }
    Value::Array(merged)
}

/// Removes from `value` what `gone` names and nobody in `kept` holds, the item or container with it.
pub(crate) fn remove(value: &mut Value, schema: &Schema, gone: &Set, kept: &Set) {
    for (element, gone) in &gone.children {
        let kept = kept.children.get(element).filter(|kept| !kept.is_empty());
        let schema_below = below(schema, element);
        match value {
            Value::Object(members) => {
                let Some(name) = element.strip_prefix("f:") else { continue };
                match kept {
                    None => {
                        members.remove(name);
                    }
                    Some(kept) => {
                        if let Some(member) = members.get_mut(name) {
                            remove(member, schema_below, gone, kept);
                        }
                    }
                }
            }
            Value::Array(items) => {
                let position = items.iter().position(|item| match &schema.list {
                    ListKind::Set => value_element(item) == *element,
                    ListKind::Map(keys) => key_of(item, keys, schema_below) == *element,
                    ListKind::Atomic => false,
                });
                let Some(position) = position else { continue };
                match kept {
                    None => {
                        items.remove(position);
                    }
                    Some(kept) => remove(&mut items[position], schema_below, gone, kept),
                }
            }
            _ => {}
        }
    }
}

/// A member of `config` that the schema does not know, as apply refuses it: its path.
pub(crate) fn undeclared(value: &Value, schema: &Schema, path: &str) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match schema.member(name) {
                Some(schema) => undeclared(value, schema, &path),
                None if schema.is_open() || schema.embedded => None,
                None => Some(path),
            }
        }),
        Value::Array(items) => {
            let schema = schema.items.as_deref()?;
            items.iter().enumerate().find_map(|(index, value)| undeclared(value, schema, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::compile;
    use serde_json::json;

    fn schema() -> Schema {
        compile(
            &json!({"type": "object", "properties": {
                "image": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "env": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}}}}),
            "",
        )
        .unwrap()
    }

    #[test]
    fn keyed_lists_merge_by_key_and_sets_by_value() {
        let live = json!({"tags": ["a", "b"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let config = json!({"tags": ["c"], "env": [{"name": "B", "value": "3"}, {"name": "C"}]});
        let merged = merge(Some(&live), &config, &schema());
        assert_eq!(merged["tags"], json!(["a", "b", "c"]));
        assert_eq!(merged["env"], json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C"}]));
    }

    #[test]
    fn an_update_owns_what_it_adds_with_its_containers() {
        let (mut changed, mut removed) = (Set::default(), Set::default());
        let old = json!({"image": "x"});
        let new = json!({"env": [{"name": "A", "value": "1"}]});
        compare(Some(&old), Some(&new), &schema(), &mut changed, &mut removed);
        assert_eq!(
            changed.to_json(),
            json!({"f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}})
        );
        assert_eq!(removed.to_json(), json!({"f:image": {}}));
    }

    #[test]
    fn removing_keeps_what_another_holds() {
        let mut value = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "image": "x"});
        let gone = Set::parse(
            &json!({"f:env": {"k:{\"name\":\"A\"}": {}, "k:{\"name\":\"B\"}": {"f:value": {}}}, "f:image": {}}),
        )
        .unwrap();
        let kept = Set::parse(&json!({"f:env": {"k:{\"name\":\"B\"}": {"f:name": {}}}})).unwrap();
        remove(&mut value, &schema(), &gone, &kept);
        assert_eq!(value, json!({"env": [{"name": "B"}]}));
    }
}
