//! The cells of the builtin kinds, as kube-apiserver prints them.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::table::{Column, age};
use crate::registry::Builtin;

const NONE: &str = "<none>";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn or(text: &str, fallback: &str) -> Value {
    Value::from(if text.is_empty() { fallback } else { text })
}

fn items(value: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn name(object: &Value, _: DateTime<Utc>) -> Value {
    object["metadata"]["name"].clone()
}

fn created(object: &Value, now: DateTime<Utc>) -> Value {
    age(object["metadata"]["creationTimestamp"].as_str(), now).into()
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(crate) fn columns(kind: Builtin) -> Vec<Column> {
    let column = Column::computed;
    match kind {
        Builtin::Namespace => vec![
            column("Name", 0, name),
            column("Status", 0, |object, _| text(&object["status"]["phase"]).into()),
            column("Age", 0, created),
        ],
        Builtin::Pod => vec![
            column("Name", 0, name),
            column("Ready", 0, |pod, now| PodLine::of(pod, now).ready.into()),
            column("Status", 0, |pod, now| PodLine::of(pod, now).status.into()),
            column("Restarts", 0, |pod, now| PodLine::of(pod, now).restarts.into()),
            column("Age", 0, created),
            column("IP", 1, |pod, _| or(text(&pod["status"]["podIP"]), NONE)),
            column("Node", 1, |pod, _| or(text(&pod["spec"]["nodeName"]), NONE)),
            column("Nominated Node", 1, |pod, _| or(text(&pod["status"]["nominatedNodeName"]), NONE)),
            column("Readiness Gates", 1, |pod, _| match items(&pod["spec"]["readinessGates"]).count() {
                0 => NONE.into(),
                gates => format!("0/{gates}").into(),
            }),
        ],
        Builtin::Node => vec![
            column("Name", 0, name),
            column("Status", 0, node_status),
            column("Roles", 0, node_roles),
            column("Age", 0, created),
            column("Version", 0, |node, _| text(&node["status"]["nodeInfo"]["kubeletVersion"]).into()),
            column("Internal-IP", 1, |node, _| node_address(node, "InternalIP")),
            column("External-IP", 1, |node, _| node_address(node, "ExternalIP")),
            column("OS-Image", 1, |node, _| or(text(&node["status"]["nodeInfo"]["osImage"]), "<unknown>")),
            column("Kernel-Version", 1, |node, _| or(text(&node["status"]["nodeInfo"]["kernelVersion"]), "<unknown>")),
            column("Container-Runtime", 1, |node, _| {
                or(text(&node["status"]["nodeInfo"]["containerRuntimeVersion"]), "<unknown>")
            }),
        ],
        Builtin::Event | Builtin::NewEvent => vec![
            column("Last Seen", 0, |event, now| last_seen(event, now).into()),
            column("Type", 0, |event, _| text(&event["type"]).into()),
            column("Reason", 0, |event, _| text(&event["reason"]).into()),
            column("Object", 0, event_object),
            column("Subobject", 1, |event, _| text(&event["involvedObject"]["fieldPath"]).into()),
            column("Source", 1, |event, _| {
                let component = text(&event["source"]["component"]);
                or(component, text(&event["reportingComponent"]))
            }),
            column("Message", 0, |event, _| text(&event["message"]).trim().into()),
            column("First Seen", 1, |event, now| first_seen(event, now).into()),
            column("Count", 1, |event, _| {
                let series = event["series"]["count"].as_i64();
                series.or(event["count"].as_i64().filter(|count| *count > 0)).unwrap_or(1).into()
            }),
            column("Name", 1, name),
        ],
        Builtin::Secret => vec![
            column("Name", 0, name),
            column("Type", 0, |secret, _| text(&secret["type"]).into()),
            column("Data", 0, |secret, _| count(&secret["data"]).into()),
            column("Age", 0, created),
        ],
        Builtin::ConfigMap => vec![
            column("Name", 0, name),
            column("Data", 0, |map, _| (count(&map["data"]) + count(&map["binaryData"])).into()),
            column("Age", 0, created),
        ],
        Builtin::ServiceAccount => vec![column("Name", 0, name), column("Age", 0, created)],
        Builtin::Lease => vec![
            column("Name", 0, name),
            column("Holder", 0, |lease, _| text(&lease["spec"]["holderIdentity"]).into()),
            column("Age", 0, created),
        ],
        Builtin::CustomResourceDefinition => vec![
            column("Name", 0, name),
            column("Created At", 0, |crd, _| crd["metadata"]["creationTimestamp"].clone()),
        ],
    }
}

fn node_status(node: &Value, _: DateTime<Utc>) -> Value {
    let ready = items(&node["status"]["conditions"]).find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| text(&condition["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"].as_bool() == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(node: &Value, _: DateTime<Utc>) -> Value {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.push(text(value));
        }
    }
    roles.sort_unstable();
    or(&roles.join(","), NONE)
}

fn node_address(node: &Value, kind: &str) -> Value {
    let address = items(&node["status"]["addresses"]).find(|address| address["type"] == kind);
    or(address.map(|address| text(&address["address"])).unwrap_or_default(), NONE)
}

fn event_object(event: &Value, _: DateTime<Utc>) -> Value {
    let involved = &event["involvedObject"];
    let kind = text(&involved["kind"]).to_lowercase();
    match text(&involved["name"]) {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn first_seen(event: &Value, now: DateTime<Utc>) -> String {
    age(event["firstTimestamp"].as_str().or(event["eventTime"].as_str()), now)
}

fn last_seen(event: &Value, now: DateTime<Utc>) -> String {
    match event["series"]["lastObservedTime"].as_str().or(event["lastTimestamp"].as_str()) {
        Some(at) => age(Some(at), now),
        None => first_seen(event, now),
    }
}

/// The three computed cells of a pod.
struct PodLine {
    ready: String,
    status: String,
    restarts: String,
}

impl PodLine {
    fn of(pod: &Value, now: DateTime<Utc>) -> Self {
        let status = &pod["status"];
        let phase = text(&status["phase"]);
        let mut reason = or(text(&status["reason"]), phase).as_str().unwrap_or_default().to_owned();
        let total = items(&pod["spec"]["containers"]).count();
        let condition = |kind: &str| {
            items(&status["conditions"]).any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        if items(&status["conditions"])
            .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated")
        {
            reason = "SchedulingGated".to_owned();
        }
        let (mut restarts, mut ready, mut last_restart): (i64, usize, Option<&str>) = (0, 0, None);
        let inits = items(&pod["spec"]["initContainers"]).count();
        let mut initializing = false;
        for (index, container) in items(&status["initContainerStatuses"]).enumerate() {
            restarts += container["restartCount"].as_i64().unwrap_or(0);
            let (ended, waiting) = (&container["state"]["terminated"], text(&container["state"]["waiting"]["reason"]));
            if ended.is_object() {
                if ended["exitCode"].as_i64() == Some(0) {
                    continue;
                }
                reason = format!("Init:{}", end_reason(ended));
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                reason = format!("Init:{waiting}");
            } else {
                reason = format!("Init:{index}/{inits}");
            }
            initializing = true;
            break;
        }
        if !initializing || condition("Initialized") {
            restarts = 0;
            let (mut running, mut failed) = (false, None);
            for container in items(&status["containerStatuses"]).rev() {
                restarts += container["restartCount"].as_i64().unwrap_or(0);
                last_restart = last_restart.max(container["lastState"]["terminated"]["finishedAt"].as_str());
                let state = &container["state"];
                let waiting = text(&state["waiting"]["reason"]);
                if !waiting.is_empty() {
                    reason = waiting.to_owned();
                } else if state["terminated"].is_object() {
                    reason = end_reason(&state["terminated"]);
                    if state["terminated"]["exitCode"].as_i64() != Some(0) {
                        failed = Some(reason.clone());
                    }
                } else if container["ready"].as_bool() == Some(true) && state["running"].is_object() {
                    running = true;
                    ready += 1;
                }
            }
            if reason == "Completed" {
                if running && condition("Ready") {
                    reason = "Running".to_owned();
                } else if let Some(failed) = failed {
                    reason = failed;
                } else if running {
                    reason = "NotReady".to_owned();
                }
            }
        }
        if pod["metadata"].get("deletionTimestamp").is_some() {
            if text(&status["reason"]) == "NodeLost" {
                reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                reason = "Terminating".to_owned();
            }
        }
        let restarts = match (restarts, last_restart) {
            (0, _) | (_, None) => restarts.to_string(),
            (restarts, at) => format!("{restarts} ({} ago)", age(at, now)),
        };
        Self { ready: format!("{ready}/{total}"), status: reason, restarts }
    }
}

fn end_reason(ended: &Value) -> String {
    let reason = text(&ended["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match ended["signal"].as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}
