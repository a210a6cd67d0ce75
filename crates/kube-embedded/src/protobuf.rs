//! Decoding the protobuf bodies that kubectl's typed clients send and would not send as JSON instead
//! (`create namespace|configmap|secret|serviceaccount`, `auth can-i`, `auth whoami`).
//!
//! Field numbers: the generated.proto files of k8s.io/api and k8s.io/apimachinery.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};

/// What a field holds.
enum Field {
    Text,
    Bytes,
    Bool,
    Integer,
    Message(&'static [(u64, &'static str, Field)]),
    TextMap,
    BytesMap,
    Texts,
    Messages(&'static [(u64, &'static str, Field)]),
    /// `metav1.Time`: seconds, nanoseconds.
    Time,
}

type Fields = &'static [(u64, &'static str, Field)];

const OWNER: Fields = &[
    (1, "kind", Field::Text),
    (3, "name", Field::Text),
    (4, "uid", Field::Text),
    (5, "apiVersion", Field::Text),
    (6, "controller", Field::Bool),
    (7, "blockOwnerDeletion", Field::Bool),
];
const META: Fields = &[
    (1, "name", Field::Text),
    (2, "generateName", Field::Text),
    (3, "namespace", Field::Text),
    (5, "uid", Field::Text),
    (6, "resourceVersion", Field::Text),
    (8, "creationTimestamp", Field::Time),
    (11, "labels", Field::TextMap),
    (12, "annotations", Field::TextMap),
    (13, "ownerReferences", Field::Messages(OWNER)),
    (14, "finalizers", Field::Texts),
];
const NAMESPACE: Fields = &[
    (1, "metadata", Field::Message(META)),
    (2, "spec", Field::Message(&[(1, "finalizers", Field::Texts)])),
    (3, "status", Field::Message(&[(1, "phase", Field::Text)])),
];
const CONFIG_MAP: Fields = &[
    (1, "metadata", Field::Message(META)),
    (2, "data", Field::TextMap),
    (3, "binaryData", Field::BytesMap),
    (4, "immutable", Field::Bool),
];
const SECRET: Fields = &[
    (1, "metadata", Field::Message(META)),
    (2, "data", Field::BytesMap),
    (3, "type", Field::Text),
    (4, "stringData", Field::TextMap),
    (5, "immutable", Field::Bool),
];
const NAMED: Fields = &[(1, "name", Field::Text)];
const OBJECT_REFERENCE: Fields = &[(1, "kind", Field::Text), (2, "namespace", Field::Text), (3, "name", Field::Text)];
const SERVICE_ACCOUNT: Fields = &[
    (1, "metadata", Field::Message(META)),
    (2, "secrets", Field::Messages(OBJECT_REFERENCE)),
    (3, "imagePullSecrets", Field::Messages(NAMED)),
    (4, "automountServiceAccountToken", Field::Bool),
];
const ACCESS_REVIEW: Fields = &[
    (1, "metadata", Field::Message(META)),
    (
        2,
        "spec",
        Field::Message(&[
            (
                1,
                "resourceAttributes",
                Field::Message(&[
                    (1, "namespace", Field::Text),
                    (2, "verb", Field::Text),
                    (3, "group", Field::Text),
                    (4, "version", Field::Text),
                    (5, "resource", Field::Text),
                    (6, "subresource", Field::Text),
                    (7, "name", Field::Text),
                ]),
            ),
            (2, "nonResourceAttributes", Field::Message(&[(1, "path", Field::Text), (2, "verb", Field::Text)])),
        ]),
    ),
];
const RULES_REVIEW: Fields =
    &[(1, "metadata", Field::Message(META)), (2, "spec", Field::Message(&[(1, "namespace", Field::Text)]))];
const SELF_REVIEW: Fields = &[(1, "metadata", Field::Message(META))];
const DELETE_OPTIONS: Fields = &[
    (1, "gracePeriodSeconds", Field::Integer),
    (2, "preconditions", Field::Message(&[(1, "uid", Field::Text), (2, "resourceVersion", Field::Text)])),
    (3, "orphanDependents", Field::Bool),
    (4, "propagationPolicy", Field::Text),
    (5, "dryRun", Field::Texts),
];

const KINDS: [(&str, Fields); 8] = [
    ("Namespace", NAMESPACE),
    ("ConfigMap", CONFIG_MAP),
    ("Secret", SECRET),
    ("ServiceAccount", SERVICE_ACCOUNT),
    ("SelfSubjectAccessReview", ACCESS_REVIEW),
    ("SelfSubjectRulesReview", RULES_REVIEW),
    ("SelfSubjectReview", SELF_REVIEW),
    ("DeleteOptions", DELETE_OPTIONS),
];

const UNKNOWN: Fields = &[
    (1, "typeMeta", Field::Message(&[(1, "apiVersion", Field::Text), (2, "kind", Field::Text)])),
    (2, "raw", Field::Bytes),
];

fn broken(why: &str) -> ApiError {
    ApiError::bad_request(format!("the protobuf body cannot be decoded: {why}"))
}

/// Decodes a `runtime.Unknown` behind its magic number.
pub(crate) fn decode(bytes: &[u8]) -> ApiResult<Value> {
    let rest = bytes.strip_prefix(b"k8s\0").ok_or_else(|| broken("it does not start with k8s\\0"))?;
    let unknown = message(rest, UNKNOWN, 0)?;
    let raw = unknown["raw"].as_str().unwrap_or_default();
    let raw = base64::engine::general_purpose::STANDARD.decode(raw).map_err(|_| broken("raw"))?;
    let kind = unknown["typeMeta"]["kind"].as_str().unwrap_or_default();
    let Some((_, fields)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        return Err(ApiError::unsupported_media(&["application/json", "application/yaml"]));
    };
    let mut object = message(&raw, fields, 0)?;
    object["apiVersion"] = unknown["typeMeta"]["apiVersion"].clone();
    object["kind"] = json!(kind);
    Ok(object)
}

fn varint(bytes: &mut &[u8]) -> ApiResult<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(|| broken("it ends inside a number"))?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken("a number is too long"))
}

fn chunk<'a>(bytes: &mut &'a [u8]) -> ApiResult<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| broken("a length is too large"))?;
    let (chunk, rest) = bytes.split_at_checked(length).ok_or_else(|| broken("it ends inside a field"))?;
    *bytes = rest;
    Ok(chunk)
}

enum Wire<'a> {
    Number(u64),
    Chunk(&'a [u8]),
}

fn next<'a>(bytes: &mut &'a [u8]) -> ApiResult<(u64, Wire<'a>)> {
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => Wire::Chunk(chunk(bytes)?),
        fixed @ (1 | 5) => {
            let (skipped, rest) = bytes
                .split_at_checked(if fixed == 1 { 8 } else { 4 })
                .ok_or_else(|| broken("it ends inside a field"))?;
            *bytes = rest;
            Wire::Chunk(skipped)
        }
        _ => return Err(broken("a wire type is unknown")),
    };
    Ok((tag >> 3, wire))
}

fn utf8(bytes: &[u8]) -> ApiResult<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| broken("a text is not UTF-8"))
}

fn message(mut bytes: &[u8], fields: Fields, depth: usize) -> ApiResult<Value> {
    if depth > 8 {
        return Err(broken("it nests too deep"));
    }
    let base64 = |bytes: &[u8]| json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = next(&mut bytes)?;
        let Some((_, name, field)) = fields.iter().find(|(known, _, _)| *known == number) else { continue };
        let name = (*name).to_owned();
        match (field, wire) {
            // Go writes empty strings of required fields; they are absent in JSON.
            (Field::Text, Wire::Chunk([])) => {}
            (Field::Text, Wire::Chunk(chunk)) => {
                object.insert(name, json!(utf8(chunk)?));
            }
            (Field::Bytes, Wire::Chunk(chunk)) => {
                object.insert(name, base64(chunk));
            }
            (Field::Bool, Wire::Number(value)) => {
                object.insert(name, json!(value != 0));
            }
            (Field::Integer, Wire::Number(value)) => {
                object.insert(name, json!(i64::from_ne_bytes(value.to_ne_bytes())));
            }
            (Field::Message(fields), Wire::Chunk(chunk)) => {
                object.insert(name, message(chunk, fields, depth + 1)?);
            }
            (Field::Texts, Wire::Chunk(chunk)) => push(&mut object, name, json!(utf8(chunk)?)),
            (Field::Messages(fields), Wire::Chunk(chunk)) => {
                let item = message(chunk, fields, depth + 1)?;
                push(&mut object, name, item);
            }
            (map @ (Field::TextMap | Field::BytesMap), Wire::Chunk(mut entry)) => {
                let (mut key, mut value) = (String::new(), json!(""));
                while !entry.is_empty() {
                    match next(&mut entry)? {
                        (1, Wire::Chunk(chunk)) => key = utf8(chunk)?,
                        (2, Wire::Chunk(chunk)) if matches!(map, Field::BytesMap) => value = base64(chunk),
                        (2, Wire::Chunk(chunk)) => value = json!(utf8(chunk)?),
                        _ => {}
                    }
                }
                let slot = object.entry(name).or_insert_with(|| json!({}));
                slot[key] = value;
            }
            (Field::Time, Wire::Chunk(mut time)) => {
                let mut seconds = None;
                while !time.is_empty() {
                    if let (1, Wire::Number(value)) = next(&mut time)? {
                        seconds = chrono::DateTime::from_timestamp(i64::from_ne_bytes(value.to_ne_bytes()), 0);
                    }
                }
                if let Some(at) = seconds {
                    object.insert(name, json!(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
                }
            }
            _ => return Err(broken("a field has the wrong wire type")),
        }
    }
    Ok(Value::Object(object))
}

fn push(object: &mut Map<String, Value>, name: String, item: Value) {
    if let Some(list) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, chunk: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(chunk.len()).unwrap()];
        bytes.extend_from_slice(chunk);
        bytes
    }

    #[test]
    fn a_config_map_is_read() {
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &field(1, b"cm")), field(2, &entry)].concat();
        let meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let body = [b"k8s\0".to_vec(), field(1, &meta), field(2, &raw)].concat();
        assert_eq!(
            decode(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"k": "v"}})
        );
        for end in 4..body.len() - 1 {
            // Cut anywhere, it is refused or shorter, never a panic.
            let _ = decode(&body[..end]);
        }
    }
}
