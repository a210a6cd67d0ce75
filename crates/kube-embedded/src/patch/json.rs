//! JSON patch as the Go library of kube-apiserver does it: RFC 6902, but `test` of a missing path with null passes and
//! `replace` of a missing member adds. kube-rs' `finalizer()` counts on the first.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// As many operations as one patch may have.
const OPERATIONS: usize = 10_000;

pub(crate) fn apply(target: &mut Value, patch: &Value) -> ApiResult<()> {
    let operations =
        patch.as_array().ok_or_else(|| ApiError::bad_request("a JSON patch must be a list of operations"))?;
    if operations.len() > OPERATIONS {
        return Err(ApiError::body_too_large(OPERATIONS));
    }
    operations.iter().try_for_each(|operation| step(target, operation).ok_or_else(ApiError::unprocessable_patch))
}

fn step(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    match operation["op"].as_str()? {
        "add" => insert(target, path, operation.get("value").cloned().unwrap_or(Value::Null)),
        "remove" => take(target, path).map(|_| ()),
        "replace" => {
            let value = operation.get("value").cloned().unwrap_or(Value::Null);
            match find(target, path) {
                Some(at) => {
                    *at = value;
                    Some(())
                }
                None => insert(target, path, value),
            }
        }
        "move" => {
            let value = take(target, operation["from"].as_str()?)?;
            insert(target, path, value)
        }
        "copy" => {
            let value = find(target, operation["from"].as_str()?)?.clone();
            insert(target, path, value)
        }
        "test" => {
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            let passes = match find(target, path) {
                Some(found) => equal(found, wanted),
                None => wanted.is_null(),
            };
            passes.then_some(())
        }
        _ => None,
    }
}

/// Numbers are equal by value: a client may write 1.0 for 1.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, unescape(last)))
}

fn find<'a>(target: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    if path.is_empty() {
        return Some(target);
    }
    path.strip_prefix('/')?.split('/').try_fold(target, |at, token| {
        let token = unescape(token);
        match at {
            Value::Object(members) => members.get_mut(&token),
            Value::Array(items) => {
                let index = position(&token, items.len())?;
                items.get_mut(index)
            }
            _ => None,
        }
    })
}

/// An index of a list; negative ones count from the end, as the Go library has it.
fn position(token: &str, length: usize) -> Option<usize> {
    match token.strip_prefix('-') {
        Some(back) => length.checked_sub(back.parse().ok()?),
        None => token.parse().ok(),
    }
}

fn insert(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = split(path)?;
    match find(target, parent)? {
        Value::Object(members) => {
            members.insert(last, value);
            Some(())
        }
        Value::Array(items) => {
            let index = if last == "-" { items.len() } else { position(&last, items.len())? };
            (index <= items.len()).then(|| items.insert(index, value))
        }
        _ => None,
    }
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match find(target, parent)? {
        Value::Object(members) => members.remove(&last),
        Value::Array(items) => {
            let index = position(&last, items.len())?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_finalizer_helper_of_kube_rs_works() {
        let mut object = json!({"metadata": {"name": "a"}});
        apply(
            &mut object,
            &json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": ["x"]}]),
        )
        .unwrap();
        apply(
            &mut object,
            &json!([{"op": "test", "path": "/metadata/finalizers", "value": ["x"]},
                {"op": "add", "path": "/metadata/finalizers/-", "value": "y"}]),
        )
        .unwrap();
        assert_eq!(object["metadata"]["finalizers"], json!(["x", "y"]));
        apply(&mut object, &json!([{"op": "remove", "path": "/metadata/finalizers/0"}])).unwrap();
        assert_eq!(object["metadata"]["finalizers"], json!(["y"]));
    }

    #[test]
    fn what_cannot_be_done_is_422() {
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "add", "path": "/none/below", "value": 1}]),
            json!([{"op": "add", "path": "/l/7", "value": 1}]),
        ] {
            assert_eq!(apply(&mut json!({"a": 1, "l": []}), &patch).unwrap_err().code, 422, "{patch}");
        }
        let mut object = json!({"a/b": {"c": [1, 2]}});
        apply(
            &mut object,
            &json!([{"op": "replace", "path": "/new", "value": 1}, {"op": "move", "from": "/a~1b/c/-1", "path": "/moved"}]),
        )
        .unwrap();
        assert_eq!(object, json!({"a/b": {"c": [1]}, "new": 1, "moved": 2}));
    }
}
