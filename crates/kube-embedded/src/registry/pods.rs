//! Pods: the defaults that kube-apiserver fills in, and what may still change after creation.

use serde_json::{Value, json};

use crate::error::Cause;

fn default(object: &mut Value, name: &str, value: Value) {
    if object.get(name).is_none_or(Value::is_null) {
        object[name] = value;
    }
}

/// The items of a list, none if it is absent. (Indexing a mutable value would insert null.)
fn list_mut<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(super) fn fill_in(pod: &mut Value) {
    default(pod, "spec", json!({}));
    let spec = &mut pod["spec"];
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    default(spec, "enableServiceLinks", json!(true));
    for list in ["containers", "initContainers"] {
        for container in list_mut(spec, list).filter(|container| container.is_object()) {
            default(container, "resources", json!({}));
            default(container, "terminationMessagePath", json!("/dev/termination-log"));
            default(container, "terminationMessagePolicy", json!("File"));
            let image = container["image"].as_str().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            let floating = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
            default(container, "imagePullPolicy", json!(if floating { "Always" } else { "IfNotPresent" }));
            for port in list_mut(container, "ports").filter(|port| port.is_object()) {
                default(port, "protocol", json!("TCP"));
            }
        }
    }
    for volume in list_mut(spec, "volumes").filter(|volume| volume.is_object()) {
        if let Some(secret) = volume.get_mut("secret").filter(|secret| secret.is_object()) {
            default(secret, "defaultMode", json!(420));
        }
        if let Some(map) = volume.get_mut("configMap").filter(|map| map.is_object()) {
            default(map, "defaultMode", json!(420));
        }
        if let Some(host) = volume.get_mut("hostPath").filter(|host| host.is_object()) {
            default(host, "type", json!(""));
        }
    }
}

/// A pod is born pending, of a class that follows from its resources.
pub(super) fn prepare(pod: &mut Value) {
    let class = quality(&pod["spec"]);
    pod["status"] = json!({ "phase": "Pending", "qosClass": class });
}

/// Guaranteed: every container limits cpu and memory and asks for as much. BestEffort: none says anything.
fn quality(spec: &Value) -> &'static str {
    let containers =
        || ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let amounts = |container: &Value, kind: &str| -> Vec<Option<String>> {
        ["cpu", "memory"]
            .iter()
            .map(|name| {
                let amount = &container["resources"][kind][*name];
                (!amount.is_null()).then(|| amount.to_string())
            })
            .collect()
    };
    let mentioned = containers().any(|container| {
        ["requests", "limits"].iter().any(|kind| amounts(container, kind).iter().any(Option::is_some))
    });
    if !mentioned {
        return "BestEffort";
    }
    let guaranteed = containers().all(|container| {
        let limits = amounts(container, "limits");
        let requests = amounts(container, "requests");
        limits.iter().zip(&requests).all(|(limit, request)| limit.is_some() && (request.is_none() || request == limit))
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

pub(super) fn problems(pod: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &pod["spec"];
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    // One that is absent is missed by the schema.
    if containers.is_empty() && spec["containers"].is_array() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("spec.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                causes.push(Cause::required(format!("{at}.name"), ""));
            } else if names.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &json!(name)));
            } else if !crate::meta::is_dns_label(name) {
                causes.push(Cause::invalid(format!("{at}.name"), &json!(name), "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"));
            }
            names.push(name);
            if container["image"].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("{at}.image"), ""));
            }
        }
    }
    if !matches!(spec["restartPolicy"].as_str(), Some("Always" | "OnFailure" | "Never")) {
        causes.push(Cause::new(
            "FieldValueNotSupported",
            "spec.restartPolicy",
            format!(
                "Unsupported value: {}: supported values: \"Always\", \"OnFailure\", \"Never\"",
                spec["restartPolicy"]
            ),
        ));
    }
    if let Some(old) = old
        && frozen(old) != frozen(pod)
    {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

/// The spec without what may change.
fn frozen(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        for name in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec.remove(name);
        }
    }
    for list in ["containers", "initContainers"] {
        for container in list_mut(&mut spec, list) {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    spec
}
