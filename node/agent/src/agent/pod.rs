//! Pods as the node agent reads and reports them; pure functions.

use std::collections::BTreeMap;

use berth_sandbox::monitor::Outcome;
use berth_workspace_crd::{
    ANNOTATION_DISK_BYTES, ANNOTATION_IO, ANNOTATION_NO_NEW_PRIVILEGES, ANNOTATION_PIDS, CONTAINER, LABEL_ATTEMPT,
    LABEL_INSTANCE, LABEL_WORKSPACE, Workspace,
};
use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::container::Limits;
use crate::instance::{Ended, StartRequest, explain};

/// A pod that the node cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pod {pod} has no usable {what}")]
pub(super) struct BadPod {
    /// Its name.
    pub pod: String,
    /// What is missing.
    pub what: &'static str,
}

/// Name of a pod.
#[must_use]
pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The instance a pod is for.
#[must_use]
pub(super) fn instance(pod: &Pod) -> Option<&str> {
    label(pod, LABEL_INSTANCE)
}

/// Which attempt it is.
#[must_use]
pub(super) fn attempt(pod: &Pod) -> u32 {
    label(pod, LABEL_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether it is to go.
#[must_use]
pub(super) const fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// `status.phase`.
#[must_use]
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether it is over, as reported.
#[must_use]
pub(super) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it was reported Ready.
#[must_use]
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

/// Grace period for its processes, in seconds.
#[must_use]
pub(super) fn grace_seconds(pod: &Pod, default: u64) -> u64 {
    let spec = || pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    pod.metadata
        .deletion_grace_period_seconds
        .or_else(spec)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .unwrap_or(default)
}

/// A quantity of Kubernetes (`1500m`, `2`, `1Gi`, `500M`) in thousandths.
fn quantity_millis(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: u64 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut scale = factor;
    for digit in fraction.chars() {
        scale /= 10;
        value = value.checked_add(u64::from(digit.to_digit(10)?).checked_mul(scale)?)?;
    }
    Some(value)
}

/// What the pod's container may use.
///
/// # Errors
/// Names what is missing.
pub(super) fn limits(pod: &Pod) -> Result<Limits, BadPod> {
    let bad = |what| BadPod { pod: name(pod).to_owned(), what };
    let container =
        pod.spec.as_ref().and_then(|spec| spec.containers.iter().find(|container| container.name == CONTAINER));
    let limits =
        container.and_then(|container| container.resources.as_ref()).and_then(|resources| resources.limits.as_ref());
    let limit = |key: &str| limits.and_then(|limits| limits.get(key)).and_then(|quantity| quantity_millis(&quantity.0));
    let annotation = |key: &str| pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    let number = |key: &str| annotation(key).and_then(|text| text.parse::<u64>().ok());
    Ok(Limits {
        cpu_millis: limit("cpu")
            .and_then(|millis| u32::try_from(millis).ok())
            .filter(|millis| *millis > 0)
            .ok_or_else(|| bad("cpu limit"))?,
        memory_bytes: limit("memory")
            .and_then(|millis| i64::try_from(millis / 1000).ok())
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| bad("memory limit"))?,
        disk_bytes: number(ANNOTATION_DISK_BYTES).filter(|bytes| *bytes >= 16 << 20).ok_or_else(|| bad("disk size"))?,
        pids: number(ANNOTATION_PIDS)
            .and_then(|pids| u32::try_from(pids).ok())
            .filter(|pids| *pids > 0)
            .ok_or_else(|| bad("process limit"))?,
        io_bytes_per_second: number(ANNOTATION_IO),
        no_new_privileges: annotation(ANNOTATION_NO_NEW_PRIVILEGES).is_some_and(|text| text == "true"),
    })
}

/// What to run, from the pod and its Workspace.
///
/// # Errors
/// Names what is missing.
pub(super) fn start_request(pod: &Pod, workspace: &Workspace) -> Result<StartRequest, BadPod> {
    let bad = |what| BadPod { pod: name(pod).to_owned(), what };
    let instance_id = instance(pod).filter(|id| is_uuid(id)).ok_or_else(|| bad("instance label"))?.to_owned();
    let workspace_id =
        label(pod, LABEL_WORKSPACE).filter(|id| is_uuid(id)).ok_or_else(|| bad("workspace label"))?.to_owned();
    let container =
        pod.spec.as_ref().and_then(|spec| spec.containers.iter().find(|container| container.name == CONTAINER));
    let env: BTreeMap<String, String> = container
        .and_then(|container| container.env.clone())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|var| Some((var.name, var.value?)))
        .collect();
    let spec = &workspace.spec;
    Ok(StartRequest {
        instance_id,
        workspace_id,
        owner_id: spec.owner_id.clone(),
        attempt: attempt(pod),
        hostname: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.hostname.clone())
            .unwrap_or_else(|| spec.workspace_name.clone()),
        image: spec.image.clone(),
        checkout: spec.checkout.clone(),
        git: spec.git.clone(),
        env,
        allow_private_hosts: spec.allow_private_hosts.clone(),
        limits: limits(pod)?,
    })
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn conditions(ready: bool, reason: &str, now: &str) -> Value {
    let flag = if ready { "True" } else { "False" };
    let condition = |kind: &str, status: &str| {
        let mut condition = json!({ "type": kind, "status": status, "lastTransitionTime": now });
        if !reason.is_empty() && status == "False" {
            condition["reason"] = json!(reason);
        }
        condition
    };
    json!([
        condition("PodScheduled", "True"),
        condition("Initialized", "True"),
        condition("ContainersReady", flag),
        condition("Ready", flag)
    ])
}

/// The status of a pod whose workspace is ready.
#[must_use]
pub(super) fn running_status(
    instance: &str,
    image: &str,
    digest: &str,
    address: &str,
    started: DateTime<Utc>,
) -> Value {
    let now = rfc3339(started);
    json!({ "status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "startTime": now,
        "conditions": conditions(true, "", &now),
        "containerStatuses": [{
            "name": CONTAINER, "ready": true, "started": true, "restartCount": 0, "image": image, "imageID": digest,
            "containerID": format!("hull://{instance}"), "state": { "running": { "startedAt": now } },
        }],
    } })
}

/// `terminated` of an ended container: exit status, reason, message for the user.
#[must_use]
pub(super) fn terminated(ended: &Ended) -> (i32, Option<i32>, &'static str, String) {
    let message = explain(ended);
    if ended.node_restarted {
        return (137, None, "NodeRestarted", message);
    }
    match &ended.exit.outcome {
        Outcome::Code(0) => (0, None, "Completed", message),
        // PID 1 is killed by the kernel with SIGKILL for lack of memory, or ends because what it ran was.
        Outcome::Signal(9) if ended.exit.oom_killed => (137, Some(9), "OOMKilled", message),
        Outcome::Code(code) if ended.exit.oom_killed => (*code, None, "OOMKilled", message),
        Outcome::Code(code) => (*code, None, "Error", message),
        Outcome::Signal(signal) => (128 + signal, Some(*signal), "Error", message),
        Outcome::NotStarted(_) => (128, None, "StartError", message),
        Outcome::Unknown => (137, None, "Unknown", message),
    }
}

/// The status of a pod whose container has ended.
#[must_use]
pub(super) fn ended_status(instance: &str, image: &str, digest: &str, ended: &Ended, now: DateTime<Utc>) -> Value {
    let (code, signal, reason, message) = terminated(ended);
    let at = i64::try_from(ended.exit.finished_at_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or(now);
    let mut state = json!({ "exitCode": code, "reason": reason, "message": message, "finishedAt": rfc3339(at), "containerID": format!("hull://{instance}") });
    if let Some(signal) = signal {
        state["signal"] = json!(signal);
    }
    json!({ "status": {
        "phase": if reason == "Completed" { "Succeeded" } else { "Failed" },
        "conditions": conditions(false, "PodCompleted", &rfc3339(now)),
        "containerStatuses": [{
            "name": CONTAINER, "ready": false, "started": false, "restartCount": 0, "image": image, "imageID": digest,
            "containerID": format!("hull://{instance}"), "state": { "terminated": state },
        }],
    } })
}

/// The status of a pod that was refused or whose start failed.
#[must_use]
pub(super) fn failed_status(reason: &str, message: &str, now: DateTime<Utc>) -> Value {
    json!({ "status": {
        "phase": "Failed", "reason": reason, "message": message, "conditions": conditions(false, reason, &rfc3339(now)),
    } })
}

#[cfg(test)]
mod tests {
    use berth_sandbox::monitor::Exit;

    use super::*;

    #[test]
    fn quantities_of_kubernetes_are_understood() {
        for (text, millis) in [
            ("1500m", 1500),
            ("2", 2000),
            ("0.5", 500),
            ("1Gi", 1000 << 30),
            ("1.5Gi", 1500 << 30),
            ("536870912", 536_870_912_000),
            ("1G", 1_000_000_000_000),
        ] {
            assert_eq!(quantity_millis(text), Some(millis), "{text}");
        }
        for text in ["", "x", "1Q", "-1", "1e99", "99999999999999999999"] {
            assert_eq!(quantity_millis(text), None, "{text}");
        }
    }

    #[test]
    fn ends_have_their_reasons() {
        let ended = |outcome, oom_killed, node_restarted| Ended {
            exit: Exit { outcome, oom_killed, finished_at_ms: 0 },
            node_restarted,
            disk_error: None,
        };
        let reason = |outcome, oom, restarted| terminated(&ended(outcome, oom, restarted)).2;
        assert_eq!(reason(Outcome::Code(0), false, false), "Completed");
        assert_eq!(reason(Outcome::Code(0), true, false), "Completed");
        assert_eq!(reason(Outcome::Code(3), false, false), "Error");
        assert_eq!(reason(Outcome::Signal(9), true, false), "OOMKilled");
        assert_eq!(reason(Outcome::Signal(9), false, false), "Error");
        assert_eq!(reason(Outcome::Unknown, false, false), "Unknown");
        assert_eq!(reason(Outcome::Unknown, false, true), "NodeRestarted");
    }
}
