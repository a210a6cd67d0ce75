//! Makes a running container: image, disk and network side by side, then the root file system, the monitor and hull.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_http::outbound::Guard;
use berth_http::problem::chain;
use berth_sandbox::monitor::{self, MonitorHandle};
use berth_sandbox::rootfs;
use berth_workspace_crd::RuntimePhase;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::leftovers;
use super::node::{Instance, Node};
use super::record::{Record, StartRequest};
use super::start::StartError;
use super::steps::{StepGuard, Steps};
use crate::container::config::{self, Inputs};
use crate::container::{files, mount_points};
use crate::disk::Disk;
use crate::image::{self, Image, ImageError};
use crate::network::{self, ID_COUNT, LinkError, Network, Resolved};

/// Longest time for hull to create and start a container.
const CONTAINER_TIMEOUT: Duration = Duration::from_secs(90);

impl Node {
    /// From nothing to a container that runs.
    pub(super) fn container<'s>(
        &'s self,
        request: &'s StartRequest,
        image: Option<&'s str>,
        steps: &'s Steps,
        cancel: &'s CancellationToken,
    ) -> BoxFuture<'s, Result<Arc<Instance>, StartError>> {
        Box::pin(self.make_container(request, image, steps, cancel))
    }

    async fn make_container(
        &self,
        request: &StartRequest,
        image: Option<&str>,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Arc<Instance>, StartError> {
        let (image, mut disk, (network, resolved, opening)) = self.parts(request, image, steps, cancel).await?;
        let step = steps.begin("container");
        if disk.record.image.is_none() {
            let digest = image.digest.to_string();
            if let Err(error) = disk.update(|record| record.image = Some(digest)) {
                self.release_network(&network).await;
                return Err(error.into());
            }
        }
        if !resolved.unresolved.is_empty() {
            step.tell(format!("not opened, no IPv4 address: {}", resolved.unresolved.join(", ")));
        }
        let record = Record {
            request: request.clone(),
            boot_id: self.inner.boot_id.clone(),
            slot: network.slot,
            openings: resolved.openings.clone(),
            image: Some(image.digest.to_string()),
            user: image.config.user.clone(),
            ready: false,
            ended: None,
        };
        let node = self.clone();
        let (at, place) = (self.inner.home.instance(&request.instance_id), network.clone());
        let launched = tokio::task::spawn_blocking(move || {
            let launched = node.launch_and_open(&record, &image, &disk, &network, &resolved, opening);
            (launched, record, disk)
        })
        .await;
        match launched {
            Ok((Ok(handle), record, disk)) => {
                step.phases(phases(&at));
                Ok(self.watch(record, at, Some(disk), handle))
            }
            Ok((Err(error), _, disk)) => {
                drop(disk);
                self.clear_failed(&request.instance_id, &at, &place).await;
                Err(error)
            }
            Err(_) => {
                self.clear_failed(&request.instance_id, &at, &place).await;
                Err(StartError::Broken("container"))
            }
        }
    }

    /// Image, disk and network, side by side.
    async fn parts(
        &self,
        request: &StartRequest,
        image: Option<&str>,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<(Image, Disk, (Network, Resolved, StepGuard)), StartError> {
        let found = async {
            tokio::select! {
                () = cancel.cancelled() => Err(StartError::Cancelled),
                image = self.start_image(request, image, steps) => image,
            }
        };
        // Each result is looked at only when all are done: one that failed must not leave another behind.
        match tokio::join!(found, self.start_disk(request, steps), self.start_network(request, steps)) {
            (Ok(image), Ok(disk), Ok(network)) => Ok((image, disk, network)),
            (image, disk, network) => {
                if let Ok((network, ..)) = &network {
                    self.release_network(network).await;
                }
                Err(match (image, disk, network) {
                    (Err(error), ..) | (_, Err(error), _) | (_, _, Err(error)) => error,
                    _ => StartError::Broken("image"),
                })
            }
        }
    }

    async fn clear_failed(&self, id: &str, folder: &Path, network: &Network) {
        if let Err(error) = self.inner.runtime.delete(id).await {
            tracing::warn!(instance = id, error = chain(&error), "hull cannot delete a container that did not start");
        }
        self.release_network(network).await;
        let (id, folder, home) = (id.to_owned(), folder.to_owned(), self.inner.home.root().to_owned());
        let cleared = tokio::task::spawn_blocking(move || {
            leftovers::remove_cgroups(&home, &id);
            leftovers::unmount_below(&folder)
                .map_err(std::io::Error::from)
                .and_then(|()| berth_layer::remove::tree(&folder))
        });
        if !matches!(cleared.await, Ok(Ok(()))) {
            tracing::warn!("the folder of a start that failed stays until the next start of the node agent");
        }
    }

    async fn release_network(&self, network: &Network) {
        let (networks, slot) = (self.inner.networks.clone(), network.slot);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || networks.release(slot)).await {
            tracing::warn!(error = chain(&error), "a network stays until the next start of the node agent");
        }
    }

    /// The registries that its image may come from: the hosts that the administrator opened for this workspace are open for its image, too.
    pub(super) fn registries(&self, request: &StartRequest) -> Guard {
        let allowed = request.allow_private_hosts.iter().chain(&self.inner.config.allow_private_registries);
        Guard::new(allowed.map(String::as_str)).unwrap_or_else(|_| self.inner.guard.clone())
    }

    fn start_image<'s>(
        &'s self,
        request: &'s StartRequest,
        image: Option<&'s str>,
        steps: &'s Steps,
    ) -> BoxFuture<'s, Result<Image, StartError>> {
        Box::pin(self.find_image(request, image, steps))
    }

    async fn find_image(
        &self,
        request: &StartRequest,
        image: Option<&str>,
        steps: &Steps,
    ) -> Result<Image, StartError> {
        let step = steps.begin("image");
        let tell = step.teller();
        let images = &self.inner.images;
        let name = image.unwrap_or(image::base::BASE);
        // A disk keeps the image that it began with, whatever its tag means today.
        let fixed = self
            .inner
            .disks
            .record(&request.workspace_id)?
            .and_then(|record| record.image)
            .and_then(|digest| digest.parse().ok());
        if let Some(digest) = fixed {
            match images.by_digest(digest, tell.clone()).await {
                Err(ImageError::Lost(_)) => {
                    tell(format!("pulling {name} again"));
                    let found = images.get(name, &self.inner.guard, tell).await?;
                    return if found.digest == digest { Ok(found) } else { Err(ImageError::Lost(digest).into()) };
                }
                other => return Ok(other?),
            }
        }
        Ok(images.get(name, &self.registries(request), tell).await?)
    }

    async fn start_disk(&self, request: &StartRequest, steps: &Steps) -> Result<Disk, StartError> {
        let _step = steps.begin("disk");
        let (disks, workspace, size) =
            (self.inner.disks.clone(), request.workspace_id.clone(), request.limits.disk_bytes);
        Ok(tokio::task::spawn_blocking(move || disks.take(&workspace, size))
            .await
            .map_err(|_| StartError::Broken("disk"))??)
    }

    /// A network of its own, still closed, with what is to be opened in it; the step lasts until that is done.
    async fn start_network(
        &self,
        request: &StartRequest,
        steps: &Steps,
    ) -> Result<(Network, Resolved, StepGuard), StartError> {
        let step = steps.begin("network");
        let networks = self.inner.networks.clone();
        let network = tokio::task::spawn_blocking(move || networks.take());
        let (resolved, network) = tokio::join!(network::resolve(&request.allow_private_hosts), network);
        Ok((network.map_err(|_| StartError::Broken("network"))??, resolved, step))
    }

    /// Opens the services of an instance that an earlier agent began, who may have ended before it had.
    pub(super) async fn open_services(&self, instance: &Instance) -> Result<(), StartError> {
        let (networks, record) = (self.inner.networks.clone(), instance.record());
        let opened = tokio::task::spawn_blocking(move || networks.open_services(record.slot, record.openings));
        Ok(opened.await.map_err(|_| StartError::Broken("network"))??)
    }

    /// Starts the container, and opens the services that it may reach. Blocks.
    fn launch_and_open(
        &self,
        record: &Record,
        image: &Image,
        disk: &Disk,
        network: &Network,
        resolved: &Resolved,
        opening: StepGuard,
    ) -> Result<MonitorHandle, StartError> {
        std::thread::scope(|scope| {
            // Whoever is inside must not reach a service before it is opened, but need not wait for that to come into being.
            let opening = scope.spawn(|| {
                let _step = opening;
                self.inner.networks.open_services(network.slot, resolved.openings.clone())
            });
            let launched = self.launch(record, image, disk, network, resolved);
            let opened = opening.join().unwrap_or(Err(LinkError::Broken));
            match (launched, opened) {
                (Ok(handle), Err(error)) => {
                    end_monitor(handle, &record.request.instance_id);
                    Err(error.into())
                }
                (launched, _) => launched,
            }
        })
    }

    /// Writes the bundle, mounts the root file system, starts monitor and container. Blocks.
    fn launch(
        &self,
        record: &Record,
        image: &Image,
        disk: &Disk,
        network: &Network,
        resolved: &Resolved,
    ) -> Result<MonitorHandle, StartError> {
        let folder = self.inner.home.instance(&record.request.instance_id);
        self.write_files(&folder, record, network, resolved)?;
        let rootfs = self.mount_root(&folder, image, disk, network)?;
        self.write_config(&folder, record, image, disk, network, &rootfs)?;
        let listener = crate::supervisor::listen(&folder).map_err(file_error(&folder.join("supervisor.sock")))?;
        let mut spec = monitor::Spec::new(&folder, &record.request.instance_id, &self.inner.programs.hull);
        spec.runtime_args = self.inner.runtime.global_arguments();
        spec.timeline = true;
        spec.log_max_bytes = self.inner.config.max_log_bytes;
        let mut handle = monitor::spawn(&self.inner.programs.berth_init, &spec, listener.as_fd())?;
        // The root file system's user namespace must be held open until the container's first process is in it.
        if let Err(error) = handle.wait_started(CONTAINER_TIMEOUT, |_| {}) {
            end_monitor(handle, &record.request.instance_id);
            return Err(error.into());
        }
        drop(rootfs);
        Ok(handle)
    }

    /// The instance's folder, with its record and the small files that are mounted into the container.
    fn write_files(
        &self,
        folder: &Path,
        record: &Record,
        network: &Network,
        resolved: &Resolved,
    ) -> Result<(), StartError> {
        let request = &record.request;
        std::fs::create_dir_all(folder.join("rootfs")).map_err(file_error(folder))?;
        record.write(folder).map_err(file_error(folder))?;
        let small_files = [
            ("hosts", files::hosts(&request.hostname, network.address, &resolved.names)),
            ("hostname", format!("{}\n", request.hostname)),
            ("resolv.conf", self.inner.networks.resolv_conf(network.slot)),
            ("gitconfig", files::git_config(&request.git.name, &request.git.email)),
        ];
        for (name, content) in small_files {
            std::fs::write(folder.join(name), content).map_err(file_error(&folder.join(name)))?;
        }
        Ok(())
    }

    fn mount_root(
        &self,
        folder: &Path,
        image: &Image,
        disk: &Disk,
        network: &Network,
    ) -> Result<rootfs::Rootfs, StartError> {
        let base = network.slot.uid_base();
        let rootfs = rootfs::build(
            &self.inner.programs.berth_init,
            &rootfs::Request {
                uid_base: base,
                gid_base: base,
                id_count: ID_COUNT,
                layers: image.layers.clone(),
                disk: disk.mount_point(),
                upper: "upper".to_owned(),
                work: "work".to_owned(),
            },
        )?;
        rootfs.attach(&folder.join("rootfs"))?;
        mount_points::check(&folder.join("rootfs"))?;
        Ok(rootfs)
    }

    /// What hull reads.
    fn write_config(
        &self,
        folder: &Path,
        record: &Record,
        image: &Image,
        disk: &Disk,
        network: &Network,
        rootfs: &rootfs::Rootfs,
    ) -> Result<(), StartError> {
        let request = &record.request;
        let spec = config::spec(&Inputs {
            instance: &request.instance_id,
            cgroup: &config::cgroup(self.inner.home.root()),
            hostname: &request.hostname,
            bundle: &folder.display().to_string(),
            init: &self.inner.programs.berth_init.display().to_string(),
            user_namespace: &format!("/proc/{}/fd/{}", std::process::id(), rootfs.userns.as_raw_fd()),
            network_namespace: &network.namespace.display().to_string(),
            image_env: &image.config.env,
            user: &image.config.user,
            env: &request.env,
            cwd: &request.checkout.path,
            limits: &request.limits,
            // Without CAP_SYS_RESOURCE nobody can be given more than we have.
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .map_or(config::HARD_OPEN_FILES, |ours| ours.min(config::HARD_OPEN_FILES)),
            own_oom_score: std::fs::read_to_string("/proc/self/oom_score_adj")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            disk_device: disk.device(),
        });
        let path = folder.join("config.json");
        let json = serde_json::to_vec(&spec).map_err(|error| file_error(&path)(error.into()))?;
        std::fs::write(&path, json).map_err(file_error(&path))
    }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> StartError {
    let path = path.display().to_string();
    move |source| StartError::File { path: path.clone(), source }
}

/// What hull did to make the container of this folder.
fn phases(folder: &Path) -> Vec<RuntimePhase> {
    let phases = monitor::timeline(folder).into_iter();
    phases.map(|phase| RuntimePhase { name: phase.phase, ended_nanos: phase.ns }).collect()
}

/// Ends the monitor of a start that failed: first of all, so that nothing new is made while the rest is cleared away.
fn end_monitor(handle: MonitorHandle, instance: &str) {
    if let Err(error) = handle.end() {
        tracing::warn!(instance, error = chain(&error), "the monitor of a container that did not start stays");
    }
}
