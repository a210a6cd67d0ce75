//! What an agent does with what it finds at its start: it takes over running containers and clears away what is left of others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_http::problem::chain;
use berth_sandbox::monitor::{self, Exit, MonitorHandle, Outcome};
use tokio::sync::watch;

use super::leftovers;
use super::node::{Instance, Node, NodeError};
use super::record::{Ended, Record};
use super::runtime::Runtime;
use crate::disk::DiskError;
use crate::home::Home;

/// Longest time for a monitor to be gone once it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What an earlier agent left.
pub(super) struct Found {
    pub(super) live: Vec<(Record, PathBuf, MonitorHandle)>,
    pub(super) over: Vec<(Record, PathBuf)>,
    /// Folders of starts that were interrupted before anything ran.
    unborn: Vec<PathBuf>,
}

/// What the folders of instances say about them.
pub(super) fn find(home: &Home, boot_id: &str) -> Result<Found, NodeError> {
    let mut found = Found { live: Vec::new(), over: Vec::new(), unborn: Vec::new() };
    let path = home.instances();
    let entries = std::fs::read_dir(&path).map_err(|source| NodeError::File { path: path.clone(), source })?;
    for entry in entries.flatten() {
        let folder = entry.path();
        let record = Record::read(&folder).map_err(|source| NodeError::File { path: folder.clone(), source })?;
        let Some(record) = record else {
            found.unborn.push(folder);
            continue;
        };
        if record.ended.is_some() {
            found.over.push((record, folder));
            continue;
        }
        let handle = if record.boot_id == boot_id { monitor::adopt(&folder)? } else { None };
        let began = folder.join(monitor::MONITOR_FILE).exists() || folder.join(monitor::EXIT_FILE).exists();
        match handle {
            Some(handle) if record.ready || is_created(&handle)? => found.live.push((record, folder, handle)),
            Some(handle) => {
                end(handle)?;
                found.unborn.push(folder);
            }
            None if began && !failed_alone(&record, &folder) => found.over.push((record, folder)),
            None => found.unborn.push(folder),
        }
    }
    Ok(found)
}

/// Whether hull has made the container. Until then it needs what the agent holds open, the user namespace for one: without that agent it
/// fails, so it is ended and begun again.
fn is_created(handle: &MonitorHandle) -> Result<bool, NodeError> {
    Ok(handle.info()?.is_some_and(|info| info.container_pid.is_some()))
}

/// Ends a monitor whose container is not made yet, and hull with it.
fn end(mut handle: MonitorHandle) -> Result<(), NodeError> {
    handle.kill_monitor()?;
    handle.wait_exit(END_TIMEOUT, || 0)?;
    Ok(())
}

/// Whether hull could not make the container, and no agent was there to hear of it. A failure for another reason than the missing agent comes
/// again, and is told then.
fn failed_alone(record: &Record, folder: &Path) -> bool {
    !record.ready && MonitorHandle::exit_in(folder, 0).is_ok_and(|exit| matches!(exit.outcome, Outcome::NotStarted(_)))
}

/// Removes everything of ours that belongs to no live instance. Networks, disks and images clean up after themselves when they are opened.
pub(super) fn sweep(home: &Home, runtime: &Runtime, live: &BTreeSet<String>, found: &Found) -> Result<(), NodeError> {
    for container in runtime.list() {
        if !live.contains(&container) {
            let status = std::process::Command::new(&runtime.program)
                .args(runtime.global_arguments())
                .args(["delete", "--force"])
                .arg(&container)
                .status();
            if !status.is_ok_and(|status| status.success()) {
                tracing::warn!(container, "hull cannot delete the container of a former workspace");
            }
        }
    }
    leftovers::sweep_cgroups(home.root(), live);
    let clear = |folder: &Path| {
        leftovers::unmount_below(folder)
            .map_err(|errno| NodeError::File { path: folder.to_owned(), source: errno.into() })
    };
    for (_, folder) in &found.over {
        clear(folder)?;
    }
    for folder in &found.unborn {
        clear(folder)?;
        berth_layer::remove::tree(folder).map_err(|source| NodeError::File { path: folder.clone(), source })?;
    }
    tracing::debug!(home = %home.root().display(), live = live.len(), "swept the node");
    Ok(())
}

impl Node {
    /// Takes over a container that ran while no agent did.
    pub(super) fn adopt(&self, record: Record, folder: PathBuf, handle: MonitorHandle) {
        let workspace = record.request.workspace_id.clone();
        let disk = match self.inner.disks.take(&workspace, record.request.limits.disk_bytes) {
            Ok(disk) => Some(disk),
            Err(error) => {
                tracing::error!(workspace, error = chain(&error), "the disk of a running workspace cannot be held");
                None
            }
        };
        tracing::info!(instance = record.request.instance_id, "took over a running workspace");
        self.watch(record, folder, disk, handle);
    }

    /// Puts an instance among the ended ones; its container is gone already.
    pub(super) fn bury(&self, mut record: Record, folder: PathBuf) {
        let restarted = record.boot_id != self.inner.boot_id;
        let ended = record.ended.clone().unwrap_or_else(|| {
            let exit = MonitorHandle::exit_in(&folder, self.now_ms()).unwrap_or(Exit {
                outcome: Outcome::Unknown,
                oom_killed: false,
                finished_at_ms: self.now_ms(),
            });
            let node_restarted = restarted && exit.outcome == Outcome::Unknown;
            let disk_error = self.rest_disk(&record).err().map(|error| chain(&error));
            Ended { exit, node_restarted, disk_error }
        });
        record.ended = Some(ended.clone());
        if let Err(error) = record.write(&folder) {
            tracing::warn!(instance = record.request.instance_id, %error, "the end of a workspace cannot be written down");
        }
        let id = record.request.instance_id.clone();
        let instance = Instance {
            folder,
            record: Mutex::new(record),
            disk: Mutex::default(),
            ended: watch::Sender::new(Some(ended)),
            credentials: Mutex::default(),
            forgetting: Mutex::default(),
        };
        self.instances_lock().insert(id, Arc::new(instance));
    }

    fn rest_disk(&self, record: &Record) -> Result<(), DiskError> {
        if !self.inner.disks.exists(&record.request.workspace_id)? {
            return Ok(());
        }
        let mut disk = self.inner.disks.take(&record.request.workspace_id, record.request.limits.disk_bytes)?;
        disk.sync()?;
        if record.ready { disk.update(|disk| disk.initialized = true) } else { Ok(()) }
    }
}
