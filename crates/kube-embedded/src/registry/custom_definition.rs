//! CRDs as objects: what is filled in, and what a CRD must look like to be taken.

use serde_json::{Value, json};

use crate::error::Cause;
use crate::meta;
use crate::schema::structural;

pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn default(object: &mut Value, name: &str, value: Value) {
    if object.get(name).is_none_or(Value::is_null) {
        object[name] = value;
    }
}

pub(super) fn fill_in(crd: &mut Value) {
    default(crd, "spec", json!({}));
    let spec = &mut crd["spec"];
    default(spec, "names", json!({}));
    default(spec, "conversion", json!({ "strategy": "None" }));
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if !kind.is_empty() {
        default(&mut spec["names"], "singular", json!(kind.to_lowercase()));
        default(&mut spec["names"], "listKind", json!(format!("{kind}List")));
    }
}

pub(super) fn prepare(crd: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            let stored: Vec<&Value> = crd["spec"]["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|version| version["storage"].as_bool() == Some(true))
                .map(|version| &version["name"])
                .collect();
            crd["status"] = json!({
                "conditions": [],
                "acceptedNames": { "plural": "", "kind": "" },
                "storedVersions": stored,
            });
        }
        Some(_) => {
            let storage: Vec<String> = crd["spec"]["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|version| version["storage"].as_bool() == Some(true))
                .filter_map(|version| version["name"].as_str().map(str::to_owned))
                .collect();
            if crd["status"]["storedVersions"].is_array() {
                for name in storage {
                    let stored = crd["status"]["storedVersions"].as_array_mut();
                    if let Some(stored) = stored.filter(|stored| !stored.contains(&json!(name))) {
                        stored.push(json!(name));
                    }
                }
            }
        }
    }
}

pub(super) fn problems(crd: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &crd["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    let plural = spec["names"]["plural"].as_str().unwrap_or_default();
    let name = meta::text(crd, "name");
    if name != format!("{plural}.{group}") {
        causes.push(Cause::invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !group.contains('.') || !meta::is_dns_subdomain(group) {
        causes.push(Cause::invalid("spec.group", &json!(group), "should be a domain with at least one dot"));
    }
    let protected = group == "k8s.io"
        || group == "kubernetes.io"
        || group.ends_with(".k8s.io")
        || group.ends_with(".kubernetes.io");
    if protected && crd["metadata"]["annotations"].get("api-approved.kubernetes.io").is_none() {
        causes.push(Cause::required(
            "metadata.annotations[api-approved.kubernetes.io]",
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ));
    }
    for part in ["plural", "kind"] {
        if spec["names"][part].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.names.{part}"), ""));
        }
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        causes.push(if spec["scope"].is_null() {
            Cause::required("spec.scope", "")
        } else {
            Cause::new(
                "FieldValueNotSupported",
                "spec.scope",
                format!("Unsupported value: {}: supported values: \"Cluster\", \"Namespaced\"", spec["scope"]),
            )
        });
    }
    if spec["conversion"]["strategy"].as_str() == Some("Webhook") {
        causes.push(Cause::invalid(
            "spec.conversion.strategy",
            &spec["conversion"]["strategy"],
            "this server converts with the strategy None only",
        ));
    }
    versions(spec, causes);
    if let Some(old) = old {
        for (field, path) in [
            ("spec.group", "/spec/group"),
            ("spec.scope", "/spec/scope"),
            ("spec.names.plural", "/spec/names/plural"),
            ("spec.names.kind", "/spec/names/kind"),
        ] {
            if old.pointer(path) != crd.pointer(path) {
                causes.push(Cause::invalid(field, crd.pointer(path).unwrap_or(&Value::Null), "field is immutable"));
            }
        }
    }
}

fn versions(spec: &Value, causes: &mut Vec<Cause>) {
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().filter(|version| version["storage"].as_bool() == Some(true)).count();
    if stored != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        if !meta::is_dns_label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &json!(name), "must be a DNS-1035 label"));
        }
        if names.contains(&name) {
            causes.push(Cause::invalid("spec.versions", &spec["versions"], "must contain unique version names"));
        }
        names.push(name);
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            causes.push(Cause::required(format!("{at}.schema.openAPIV3Schema"), "schemas are required"));
            continue;
        }
        // Where all versions agree on their schema it is named without one.
        let place = if versions.len() == 1 { "spec.validation".to_owned() } else { format!("{at}.schema") };
        structural::check(schema, &format!("{place}.openAPIV3Schema"), causes);
        for (index, field) in version["selectableFields"].as_array().into_iter().flatten().enumerate() {
            let path = field["jsonPath"].as_str().unwrap_or_default();
            let known = path.trim_start_matches('.').split('.').try_fold(schema, |at, name| at["properties"].get(name));
            let scalar =
                known.is_some_and(|field| matches!(field["type"].as_str(), Some("string" | "integer" | "boolean")));
            if !path.starts_with('.') || !scalar {
                causes.push(Cause::invalid(
                    format!("{at}.selectableFields[{index}].jsonPath"),
                    &field["jsonPath"],
                    "must point to a string, boolean or integer field of the schema",
                ));
            }
        }
    }
}
