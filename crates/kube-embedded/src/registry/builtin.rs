//! The builtin kinds: what they are called, what each sets and checks on a write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Builtin, Resource, pods};
use crate::error::Cause;
use crate::meta::{self, NameRule};
use crate::output::cells;
use crate::schema::builtin;
use crate::store::object::FieldPath;

/// Keys and values of a ConfigMap or Secret together.
const DATA_BYTES: usize = 1 << 20;

struct Definition {
    kind: Builtin,
    group: &'static str,
    plural: &'static str,
    name: &'static str,
    schema: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    generation: bool,
}

const CORE: &str = "io.k8s.api.core.v1.";

const DEFINITIONS: [Definition; 10] = [
    Definition {
        kind: Builtin::Namespace,
        group: "",
        plural: "namespaces",
        name: "Namespace",
        schema: "io.k8s.api.core.v1.Namespace",
        short: &["ns"],
        categories: &[],
        namespaced: false,
        status: true,
        generation: false,
    },
    Definition {
        kind: Builtin::Pod,
        group: "",
        plural: "pods",
        name: "Pod",
        schema: "io.k8s.api.core.v1.Pod",
        short: &["po"],
        categories: &["all"],
        namespaced: true,
        status: true,
        generation: true,
    },
    Definition {
        kind: Builtin::Node,
        group: "",
        plural: "nodes",
        name: "Node",
        schema: "io.k8s.api.core.v1.Node",
        short: &["no"],
        categories: &[],
        namespaced: false,
        status: true,
        generation: false,
    },
    Definition {
        kind: Builtin::Event,
        group: "",
        plural: "events",
        name: "Event",
        schema: "io.k8s.api.core.v1.Event",
        short: &["ev"],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::NewEvent,
        group: "events.k8s.io",
        plural: "events",
        name: "Event",
        schema: "io.k8s.api.events.v1.Event",
        short: &["ev"],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::Secret,
        group: "",
        plural: "secrets",
        name: "Secret",
        schema: "io.k8s.api.core.v1.Secret",
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::ConfigMap,
        group: "",
        plural: "configmaps",
        name: "ConfigMap",
        schema: "io.k8s.api.core.v1.ConfigMap",
        short: &["cm"],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::ServiceAccount,
        group: "",
        plural: "serviceaccounts",
        name: "ServiceAccount",
        schema: "io.k8s.api.core.v1.ServiceAccount",
        short: &["sa"],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::Lease,
        group: "coordination.k8s.io",
        plural: "leases",
        name: "Lease",
        schema: "io.k8s.api.coordination.v1.Lease",
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        generation: false,
    },
    Definition {
        kind: Builtin::CustomResourceDefinition,
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        name: "CustomResourceDefinition",
        schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        generation: true,
    },
];

pub(super) fn resources() -> Vec<Resource> {
    let core: Vec<&str> =
        DEFINITIONS.iter().filter(|definition| definition.schema.starts_with(CORE)).map(|d| d.schema).collect();
    let mut core = builtin::schemas("api/v1", &core).into_iter();
    let mut resources = Vec::with_capacity(DEFINITIONS.len());
    for definition in &DEFINITIONS {
        let schema = if definition.group.is_empty() {
            core.next()
        } else {
            builtin::schemas(&format!("apis/{}/v1", definition.group), &[definition.schema]).pop()
        };
        let collection = if definition.group.is_empty() || definition.kind == Builtin::NewEvent {
            definition.plural.to_owned()
        } else {
            format!("{}.{}", definition.plural, definition.group)
        };
        resources.push(Resource {
            group: definition.group.into(),
            version: "v1".into(),
            plural: definition.plural.into(),
            singular: definition.name.to_ascii_lowercase().into(),
            kind: definition.name.into(),
            list_kind: format!("{}List", definition.name).into(),
            short_names: definition.short.iter().map(|name| (*name).to_owned()).collect(),
            categories: definition.categories.iter().map(|name| (*name).to_owned()).collect(),
            namespaced: definition.namespaced,
            collection: collection.into(),
            builtin: Some(definition.kind),
            storage: definition.kind != Builtin::NewEvent,
            schema: schema.unwrap_or_default(),
            status: definition.status,
            scale: None,
            columns: cells::columns(definition.kind),
            fields: fields(definition.kind),
            generation: definition.generation,
            names: if definition.kind == Builtin::Namespace { NameRule::Label } else { NameRule::Subdomain },
            terminating: false,
            document: None,
            deprecation: None,
        });
    }
    resources
}

fn fields(kind: Builtin) -> Arc<[FieldPath]> {
    let plain = |labels: &[&str]| -> Arc<[FieldPath]> { labels.iter().map(|label| FieldPath::new(label)).collect() };
    match kind {
        Builtin::Namespace => plain(&["status.phase"]),
        Builtin::Pod => {
            let mut fields: Vec<FieldPath> = [
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ]
            .iter()
            .map(|label| FieldPath::new(label))
            .collect();
            fields.push(FieldPath::new("spec.hostNetwork").missing("false"));
            fields.into()
        }
        Builtin::Node => [FieldPath::new("spec.unschedulable").missing("false")].into(),
        Builtin::Event | Builtin::NewEvent => {
            let mut fields: Vec<FieldPath> = [
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "type",
            ]
            .iter()
            .map(|label| FieldPath::new(label))
            .collect();
            fields.push(FieldPath::at("source", "source.component"));
            fields.into()
        }
        Builtin::Secret => plain(&["type"]),
        Builtin::ConfigMap | Builtin::ServiceAccount | Builtin::Lease | Builtin::CustomResourceDefinition => {
            Arc::new([])
        }
    }
}

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

/// Adds what the kind has of itself, on create (`old` is none) and update.
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

/// The decoder reads a Secret's data as bytes, so what is no base64 does not get as far as validation.
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

/// An event as `events.k8s.io/v1` writes it, out of the stored core form; and back. The two are renamings of each other.
pub(crate) mod events {
    use serde_json::Value;

    const NAMES: [(&str, &str); 7] = [
        ("involvedObject", "regarding"),
        ("message", "note"),
        ("reportingComponent", "reportingController"),
        ("source", "deprecatedSource"),
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ];

    fn rename(event: &mut Value, api_version: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
        let Some(members) = event.as_object_mut() else { return };
        for (from, to) in pairs {
            if let Some(value) = members.remove(from) {
                members.insert(to.to_owned(), value);
            }
        }
        members.insert("apiVersion".to_owned(), api_version.into());
    }

    pub(crate) fn from_core(event: &mut Value) {
        rename(event, "events.k8s.io/v1", NAMES.into_iter());
    }

    pub(crate) fn to_core(event: &mut Value) {
        rename(event, "v1", NAMES.into_iter().map(|(core, new)| (new, core)));
    }
}
