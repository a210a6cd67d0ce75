//! The builtin kinds: what each sets and checks on a write.

use serde_json::{Value, json};

use super::{Builtin, pods};
use crate::error::Cause;
use crate::meta;

/// Keys and values of a ConfigMap or Secret together.
const DATA_BYTES: usize = 1 << 20;

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(object, |at, name| &at[*name]).as_str().unwrap_or_default()
}

fn default(object: &mut Value, name: &str, value: Value) {
    if object.get(name).is_none_or(Value::is_null) {
        object[name] = value;
    }
}

/// Fills in the kind's defaults, which count as the writer's own fields.
pub(crate) fn fill_in(kind: Builtin, object: &mut Value) {
    match kind {
        Builtin::Namespace => {
            let name = object["metadata"]["name"].clone();
            if name.is_string() {
                object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            }
        }
        Builtin::Pod => pods::fill_in(object),
        Builtin::Secret => {
            use base64::Engine as _;
            default(object, "type", json!("Opaque"));
            let written = object.as_object_mut().and_then(|object| object.remove("stringData"));
            for (key, value) in written.as_ref().and_then(Value::as_object).into_iter().flatten() {
                let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
                object["data"][key.as_str()] = json!(encoded);
            }
        }
        Builtin::CustomResourceDefinition => super::custom_definition::fill_in(object),
        Builtin::Node
        | Builtin::Event
        | Builtin::NewEvent
        | Builtin::ConfigMap
        | Builtin::ServiceAccount
        | Builtin::Lease => {}
    }
}

/// Adds what the kind sets by itself, on create (`old` is `None`) and update.
pub(crate) fn prepare(kind: Builtin, object: &mut Value, old: Option<&Value>) {
    match kind {
        Builtin::Namespace if old.is_none() => {
            default(object, "spec", json!({}));
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({ "phase": "Active" });
        }
        Builtin::Pod if old.is_none() => pods::prepare(object),
        Builtin::Node => {
            default(object, "spec", json!({}));
            default(object, "status", json!({}));
        }
        Builtin::CustomResourceDefinition => super::custom_definition::prepare(object, old),
        Builtin::Event => {
            for name in ["involvedObject", "source"] {
                default(object, name, json!({}));
            }
            for name in ["reportingComponent", "reportingInstance"] {
                default(object, name, json!(""));
            }
        }
        Builtin::Lease => default(object, "spec", json!({})),
        Builtin::Namespace
        | Builtin::Pod
        | Builtin::Secret
        | Builtin::NewEvent
        | Builtin::ConfigMap
        | Builtin::ServiceAccount => {}
    }
}

/// What is wrong with the object, beyond its schema and metadata.
pub(crate) fn problems(kind: Builtin, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match kind {
        Builtin::Pod => pods::problems(object, old, &mut causes),
        Builtin::Lease => lease(object, &mut causes),
        Builtin::Secret | Builtin::ConfigMap => data(kind, object, old, &mut causes),
        Builtin::NewEvent => new_event(object, old, &mut causes),
        Builtin::Event => {
            let namespace = text(object, &["involvedObject", "namespace"]);
            let own = meta::text(object, "namespace");
            if !(namespace == own || namespace.is_empty() && own == "default") {
                causes.push(Cause::invalid(
                    "involvedObject.namespace",
                    &json!(namespace),
                    "does not match event.namespace",
                ));
            }
        }
        Builtin::CustomResourceDefinition => super::custom_definition::problems(object, old, &mut causes),
        Builtin::Namespace | Builtin::Node | Builtin::ServiceAccount => {}
    }
    causes
}

fn lease(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
        causes.push(Cause::invalid("spec.leaseTransitions", &json!(count), "must be greater than or equal to 0"));
    }
}

/// Times with exactly six decimals, wherever the kind has them; the decoder of kube-apiserver takes no others.
pub(crate) fn bad_micro_time(kind: Builtin, object: &Value) -> Option<String> {
    let paths: &[&[&str]] = match kind {
        Builtin::Lease => &[&["spec", "renewTime"], &["spec", "acquireTime"]],
        Builtin::Event | Builtin::NewEvent => &[&["eventTime"], &["series", "lastObservedTime"]],
        _ => &[],
    };
    for path in paths {
        let written = text(object, path);
        let exact = || {
            let rest = written.split_once('.')?.1;
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            (digits == 6 && chrono::DateTime::parse_from_rfc3339(written).is_ok()).then_some(())
        };
        if !written.is_empty() && exact().is_none() {
            return Some(format!(
                "parsing time {written:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {written:?}"
            ));
        }
    }
    None
}

/// The decoder reads a Secret's data as bytes, so invalid base64 fails before validation.
pub(crate) fn bad_base64(kind: Builtin, object: &Value) -> Option<String> {
    use base64::Engine as _;
    let encoded = match kind {
        Builtin::Secret => &object["data"],
        Builtin::ConfigMap => &object["binaryData"],
        _ => return None,
    };
    encoded.as_object().into_iter().flatten().find_map(|(_, value)| {
        let error = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).err()?;
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                value.as_str().unwrap_or_default().len()
            }
        };
        Some(format!("illegal base64 data at input byte {at}"))
    })
}

fn data(kind: Builtin, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for part in ["data", "binaryData"] {
        for (key, value) in object[part].as_object().into_iter().flatten() {
            let written = value.as_str().unwrap_or_default();
            let encoded = kind == Builtin::Secret || part == "binaryData";
            if encoded {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(written) {
                    Ok(decoded) => bytes += decoded.len(),
                    Err(_) => causes.push(Cause::invalid(format!("{part}[{key}]"), value, "illegal base64 data")),
                }
            } else {
                bytes += written.len();
            }
            let good = key.len() <= 253
                && !key.is_empty()
                && *key != "."
                && *key != ".."
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !good {
                causes.push(Cause::invalid(
                    format!("{part}[{key}]"),
                    &json!(key),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            }
        }
    }
    if bytes > DATA_BYTES {
        let field = if kind == Builtin::Secret { "data" } else { "" };
        causes.push(Cause::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {DATA_BYTES} bytes"),
        ));
    }
    let Some(old) = old else { return };
    if old["immutable"].as_bool() == Some(true) {
        for part in ["immutable", "data", "binaryData"] {
            if object.get(part) != old.get(part) {
                causes.push(Cause::forbidden(part, "field is immutable when `immutable` is set"));
            }
        }
    }
    if kind == Builtin::Secret && object["type"] != old["type"] {
        causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
    }
}

fn new_event(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old.is_some() {
        return;
    }
    for name in ["eventTime", "reportingController", "reportingInstance", "action", "reason"] {
        if text(object, &[name]).is_empty() {
            causes.push(Cause::required(name, ""));
        }
    }
    if !matches!(text(object, &["type"]), "Normal" | "Warning") {
        causes.push(Cause::invalid("type", &object["type"], "has invalid value: "));
    }
}
