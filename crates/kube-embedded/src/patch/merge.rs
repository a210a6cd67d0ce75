//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

pub(crate) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            apply(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_remove_and_lists_are_replaced() {
        let mut target = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        apply(&mut target, &json!({"a": {"b": null, "c": [3], "e": {"f": null}}, "d": {"g": 1}}));
        assert_eq!(target, json!({"a": {"c": [3], "e": {}}, "d": {"g": 1}}));
    }
}
