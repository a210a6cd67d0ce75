//! Strategic merge patch, for builtin kinds: lists merge by the keys their schema names.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::schema::{PatchStrategy, Schema};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

pub(crate) fn apply(target: &mut Value, patch: &Value, schema: &Schema) -> ApiResult<()> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            let mut replacement = patch.clone();
            replacement.remove(DIRECTIVE);
            *target = Value::Object(replacement);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(ApiError::bad_request(format!("unknown {DIRECTIVE} directive {other:?}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return Ok(()) };
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        members.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER_PREFIX) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_PREFIX) {
            if let Some(items) = members.get_mut(list).and_then(Value::as_array_mut) {
                let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if value.is_null() {
            members.remove(name);
            continue;
        }
        let open = Schema::default();
        let schema = schema.member(name).map_or(&open, |schema| &**schema);
        let slot = members.entry(name.clone()).or_insert(Value::Null);
        match (value, &schema.patch) {
            (Value::Array(items), PatchStrategy::Merge(key)) => {
                let order = patch.get(&format!("{ORDER_PREFIX}{name}")).and_then(Value::as_array);
                merge_list(slot, items, key.as_deref(), order.map(Vec::as_slice), schema)?;
            }
            (Value::Object(_), _) => apply(slot, value, schema)?,
            _ => *slot = value.clone(),
        }
    }
    Ok(())
}

fn merge_list(
    slot: &mut Value,
    patch: &[Value],
    key: Option<&str>,
    order: Option<&[Value]>,
    schema: &Schema,
) -> ApiResult<()> {
    let mut items = match slot.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let item_schema = schema.items.as_deref();
    match key {
        None => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        Some(key) => {
            if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
                items = patch.iter().filter(|item| item[DIRECTIVE] != "replace").cloned().collect();
                *slot = Value::Array(items);
                return Ok(());
            }
            for item in patch {
                let identity = item.get(key).ok_or_else(|| {
                    ApiError::bad_request(format!("map: {item} does not contain declared merge key: {key}"))
                })?;
                let at = items.iter().position(|candidate| candidate.get(key) == Some(identity));
                if item[DIRECTIVE] == "delete" {
                    if let Some(at) = at {
                        items.remove(at);
                    }
                    continue;
                }
                let open = Schema::default();
                let schema = item_schema.unwrap_or(&open);
                match at {
                    Some(at) => apply(&mut items[at], item, schema)?,
                    None => {
                        let mut fresh = Value::Null;
                        apply(&mut fresh, item, schema)?;
                        items.push(fresh);
                    }
                }
            }
        }
    }
    if let Some(order) = order {
        sort(&mut items, order, key);
    }
    *slot = Value::Array(items);
    Ok(())
}

/// Items that the order names take its sequence; the others stay behind the item they followed.
fn sort(items: &mut [Value], order: &[Value], key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    let mut last = None;
    let mut ranked: Vec<(Option<usize>, usize, Value)> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        last = rank(item).or(last);
        ranked.push((last, index, item.clone()));
    }
    ranked.sort_by_key(|(rank, index, _)| (*rank, *index));
    for (slot, (_, _, item)) in items.iter_mut().zip(ranked) {
        *slot = item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn containers_merge_by_name_and_directives_act() {
        let schema = builtin::schemas("api/v1", &["io.k8s.api.core.v1.Pod"]).pop().unwrap();
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]},
            "metadata": {"finalizers": ["x", "y"]}});
        let patch = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "$patch": "delete"}, {"name": "c"}],
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"], "labels": {"l": "1"}}});
        apply(&mut pod, &patch, &schema).unwrap();
        assert_eq!(pod["spec"]["containers"], json!([{"name": "c"}, {"name": "b", "image": "2"}]));
        let mut finalizers: Vec<&str> =
            pod["metadata"]["finalizers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        finalizers.sort_unstable();
        assert_eq!(finalizers, ["y", "z"]);
        assert_eq!(pod["metadata"]["labels"]["l"], "1");
    }
}
