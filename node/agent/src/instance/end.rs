//! The end of an instance: watched from its first moment, and cleared away after.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_http::problem::chain;
use berth_sandbox::monitor::{Exit, MonitorHandle, Outcome};
use tokio::sync::watch;

use super::leftovers;
use super::node::{Instance, Node};
use super::record::{Ended, Record};
use crate::credentials::{Asker, serve};
use crate::disk::{Disk, DiskError};

impl Node {
    /// Registers a running container: its end is watched, its questions for credentials are answered.
    pub(super) fn watch(
        &self,
        record: Record,
        folder: PathBuf,
        disk: Option<Disk>,
        handle: MonitorHandle,
    ) -> Arc<Instance> {
        let id = record.request.instance_id.clone();
        let asker = Asker {
            instance_id: id.clone(),
            owner_id: record.request.owner_id.clone(),
            repository_host: record.request.checkout.repository.host.clone(),
        };
        let instance = Arc::new(Instance {
            folder: folder.clone(),
            record: Mutex::new(record),
            disk: Mutex::new(disk),
            ended: watch::Sender::new(None),
            credentials: Mutex::default(),
            forgetting: Mutex::default(),
        });
        self.instances_lock().insert(id, instance.clone());
        let serving = tokio::spawn(serve(folder, asker, self.inner.credentials.clone()));
        *instance.credentials.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving.abort_handle());
        let (node, watched) = (self.clone(), instance.clone());
        tokio::spawn(async move {
            let detached = node.inner.detached.clone();
            tokio::select! {
                () = detached.cancelled() => {}
                () = node.follow(watched, handle) => {}
            }
        });
        instance
    }

    async fn follow(&self, instance: Arc<Instance>, mut handle: MonitorHandle) {
        let exit = loop {
            match handle.pidfd().try_clone_to_owned().and_then(readiness) {
                Ok(pidfd) => {
                    // The descriptor says only that it ended.
                    let _ = pidfd.readable().await;
                }
                Err(error) => {
                    tracing::error!(%error, "a monitor cannot be watched");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            match handle.try_exit(self.now_ms()) {
                Ok(Some(exit)) => break exit,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = chain(&error), "a container's end cannot be read");
                    break Exit { outcome: Outcome::Unknown, oom_killed: false, finished_at_ms: self.now_ms() };
                }
            }
        };
        self.finish(&instance, exit, false).await;
    }

    /// Clears away everything of an ended container but its record and logs, syncs and releases the disk, and announces the end.
    async fn finish(&self, instance: &Instance, exit: Exit, node_restarted: bool) {
        if let Some(serving) = instance.credentials.lock().unwrap_or_else(PoisonError::into_inner).take() {
            serving.abort();
        }
        let record = instance.record();
        let id = &record.request.instance_id;
        if let Err(error) = self.inner.runtime.delete(id).await {
            tracing::warn!(
                instance = id,
                error = chain(&error),
                "hull cannot delete a container; its cgroup is cleared instead"
            );
        }
        let (node, folder, slot, name) = (self.clone(), instance.folder.clone(), record.slot, id.clone());
        let cleared = tokio::task::spawn_blocking(move || {
            leftovers::remove_cgroups(node.inner.home.root(), &name);
            for mount in ["rootfs", "userns"] {
                if let Err(error) = leftovers::unmount(&folder.join(mount)) {
                    tracing::warn!(instance = name, %error, "a mount of an ended workspace stays until the next start");
                }
            }
            if let Err(error) = node.inner.networks.release(slot) {
                tracing::warn!(
                    instance = name,
                    error = chain(&error),
                    "the network of an ended workspace stays until the next start"
                );
            }
        });
        let disk = instance.disk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let was_ready = record.ready;
        let resting = tokio::task::spawn_blocking(move || -> Result<(), DiskError> {
            let Some(mut disk) = disk else { return Ok(()) };
            disk.sync()?;
            if was_ready {
                disk.update(|record| record.initialized = true)?;
            }
            Ok(())
        });
        let (cleared, resting) = tokio::join!(cleared, resting);
        if cleared.is_err() {
            tracing::error!(instance = id, "clearing away an ended workspace was interrupted");
        }
        let disk_error = match resting {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some("syncing the disk was interrupted".to_owned()),
        };
        let ended = Ended { exit, node_restarted, disk_error };
        if let Err(error) = instance.update(|record| record.ended = Some(ended.clone())) {
            tracing::warn!(instance = id, %error, "the end of a workspace cannot be written down");
        }
        instance.ended.send_replace(Some(ended));
    }
}

/// Waits for a descriptor to become readable.
pub(crate) fn readiness(fd: std::os::fd::OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that lie about their descriptor; an OwnedFd does not"
    )]
    tokio::io::unix::AsyncFd::new(fd)
}
