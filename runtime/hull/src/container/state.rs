//! The state as hooks, listeners and `state` see it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::store::{Entry, State};
use crate::error::Result;
use crate::spec::Spec;

/// The specification's state object.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The state on a hook's standard input.
pub(crate) fn json_for_hooks(spec: &Spec, id: &str, bundle: &str, status: &str, pid: i32) -> Vec<u8> {
    let state = HookState { oci_version: &spec.oci_version, id, status, pid, bundle, annotations: &spec.annotations };
    serde_json::to_vec(&state).unwrap_or_default()
}

/// The message of a seccomp listener (config-linux.md#containerprocessstate).
pub(crate) fn seccomp_message(state: &[u8], pid: i32, metadata: Option<&str>) -> Vec<u8> {
    let metadata = serde_json::to_string(metadata.unwrap_or("")).unwrap_or_default();
    let state = String::from_utf8_lossy(state);
    format!(r#"{{"ociVersion":"1.3.0","fds":["seccompFd"],"pid":{pid},"metadata":{metadata},"state":{state}}}"#)
        .into_bytes()
}

/// What `state` and `list` print: the specification's fields, those of runc, and what makes the pid safe to use.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Version of the specification the bundle follows.
    pub(crate) oci_version: String,
    /// The id.
    pub(crate) id: String,
    /// Process id, 0 when stopped.
    pub(crate) pid: i32,
    /// Status.
    pub(crate) status: &'static str,
    /// Bundle path.
    pub(crate) bundle: String,
    /// Root file system path.
    pub(crate) rootfs: String,
    /// When it was created.
    pub(crate) created: String,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Name or number of the user who created it.
    pub(crate) owner: String,
    /// Start time of the process in clock ticks after boot: tells a reused pid apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid_start_time: Option<u64>,
    /// Exit status, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_status: Option<i32>,
}

/// Looks a container up.
pub(crate) fn report(root: &str, id: &str) -> Result<Report> {
    let entry = Entry::open(root, id)?;
    let state = entry.state()?;
    report_of(&entry, &state)
}

pub(crate) fn report_of(entry: &Entry, state: &State) -> Result<Report> {
    let status = state.status(entry);
    let stopped = status == super::Status::Stopped;
    let annotations = entry.config().map(|c| c.annotations).unwrap_or_default();
    Ok(Report {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        pid: if stopped { 0 } else { state.pid },
        status: status.as_str(),
        bundle: state.bundle.clone(),
        rootfs: state.rootfs.clone(),
        created: state.created.clone(),
        annotations,
        owner: owner_name(state.owner),
        pid_start_time: (!stopped && state.pid != 0).then_some(state.start_time),
        exit_status: if stopped && state.pid != 0 { super::exit::of(entry, state) } else { entry.exit() },
    })
}

/// The name of a user of the host by /etc/passwd, as runc prints it; only for display.
fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    let text = crate::files::read_text("/etc/passwd", 4 << 20).unwrap_or_default();
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse::<u32>() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}
