//! Starting an instance: image, disk and network side by side, then the container, then the content.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_sandbox::monitor::{self, MonitorError, MonitorHandle};
use berth_sandbox::rootfs::{self, RootfsError};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::leftovers;
use super::node::{Instance, Node};
use super::record::{Record, StartRequest};
use super::steps::Steps;
use crate::checkout::{self, CheckoutError};
use crate::container::config::{self, Inputs};
use crate::container::files;
use crate::disk::{Disk, DiskError};
use crate::error_text::chain;
use crate::image::{self, Image, ImageError};
use crate::network::{ID_COUNT, LinkError, Network, Opening, Resolved};

/// The instance did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Network(#[from] LinkError),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The container.
    #[error(transparent)]
    Container(#[from] MonitorError),
    /// The content.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The supervisor.
    #[error("the workspace's supervisor does not answer")]
    Supervisor(#[source] berth_supervisor_client::ClientError),
    /// The container ended meanwhile.
    #[error("the workspace's main process ended while it started: {0}")]
    Ended(String),
    /// A file of ours.
    #[error("{path} cannot be written")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread died.
    #[error("the start was broken off in the step {0}")]
    Broken(&'static str),
    /// A stop was asked for.
    #[error("the start was broken off, because a stop was asked for")]
    Cancelled,
    /// It ended already.
    #[error("the instance {0} has ended and is not started a second time")]
    Over(String),
}

impl StartError {
    /// Whether the fault is the node's and another attempt may succeed; otherwise the user has to change something.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Network(_)
            | Self::Rootfs(_)
            | Self::Container(_)
            | Self::Broken(_)
            | Self::File { .. }
            | Self::Supervisor(_) => true,
            Self::Image(_) | Self::Disk(_) | Self::Checkout(_) | Self::Ended(_) | Self::Over(_) | Self::Cancelled => {
                false
            }
        }
    }
}

/// An instance that is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Digest of its image.
    pub image: String,
}

/// Longest time for hull to create and start a container.
const CONTAINER_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time for berth-init to answer once its program runs.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);

impl Node {
    /// Starts an instance, or goes on with one whose start was interrupted. When it fails or is cancelled nothing of it is left but its disk.
    /// Cancel it by the token, not by dropping the future: what is being made is then cleared away.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        &self,
        request: StartRequest,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Ready, StartError> {
        let id = request.instance_id.clone();
        let turn = tokio::select! {
            () = cancel.cancelled() => return Err(StartError::Cancelled),
            turn = self.inner.starting.acquire() => turn,
        };
        let _turn = turn.map_err(|_| StartError::Broken("place"))?;
        // What is left of an earlier attempt has served its purpose.
        if self
            .instance(&id)
            .is_some_and(|old| old.ended().is_some() && old.record().request.attempt != request.attempt)
        {
            self.forget(&id);
        }
        let instance = match self.instance(&id) {
            Some(instance) if instance.ended().is_some() => return Err(StartError::Over(id)),
            Some(instance) if instance.record().ready => {
                let image = instance.record().image.unwrap_or_default();
                return Ok(Ready { instance, image });
            }
            // An agent before us got this far. What it began inside begins again.
            Some(instance) => {
                checkout::clean(&instance.folder, &request.checkout.path).await?;
                instance
            }
            None => self.container(&request, request.image.as_deref(), steps, cancel).await?,
        };
        let content = tokio::select! {
            () = cancel.cancelled() => Err(StartError::Cancelled),
            content = self.content(instance, &request, steps, cancel) => content,
        };
        match content {
            Ok(ready) => Ok(ready),
            Err(error) => {
                let ended = self.instance(&id).and_then(|instance| instance.ended());
                self.stop(&id, Duration::from_secs(1)).await;
                let error = match (ended, error) {
                    // The supervisor hung up because the container was gone: that is the news.
                    (
                        Some(ended),
                        StartError::Checkout(CheckoutError::Supervisor(_) | CheckoutError::Socket(_))
                        | StartError::Supervisor(_),
                    ) => StartError::Ended(super::stop::explain(&ended)),
                    (_, error) => error,
                };
                Err(error)
            }
        }
    }

    /// From nothing to a container that runs.
    fn container<'s>(
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
        let found = async {
            tokio::select! {
                () = cancel.cancelled() => Err(StartError::Cancelled),
                image = self.start_image(request, image, steps) => image,
            }
        };
        let (image, disk, network) =
            tokio::join!(found, self.start_disk(request, steps), self.start_network(request, steps));
        // Each is looked at only when all are done: one that failed must not leave another behind.
        let prepared = match (image, disk, network) {
            (Ok(image), Ok(disk), Ok(network)) => Ok((image, disk, network)),
            (image, disk, network) => {
                if let Ok((network, _)) = &network {
                    self.release_network(network).await;
                }
                Err(match (image, disk, network) {
                    (Err(error), ..) | (_, Err(error), _) | (_, _, Err(error)) => error,
                    _ => StartError::Broken("image"),
                })
            }
        };
        let (image, mut disk, (network, resolved)) = prepared?;
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
            let launched = node.launch(&record, &image, &disk, &network, &resolved);
            (launched, record, disk)
        })
        .await;
        match launched {
            Ok((Ok(handle), record, disk)) => Ok(self.watch(record, at, Some(disk), handle)),
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
                .and_then(|()| image::unpack::remove_tree(&folder))
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
        // A disk stays with the image it began with, whatever its tag means today.
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
        // The hosts that the administrator opened for this workspace are open for its image, too.
        let allowed = request.allow_private_hosts.iter().chain(&self.inner.config.allow_private_registries);
        let guard =
            berth_http::outbound::Guard::new(allowed.map(String::as_str)).unwrap_or_else(|_| self.inner.guard.clone());
        Ok(images.get(name, &guard, tell).await?)
    }

    async fn start_disk(&self, request: &StartRequest, steps: &Steps) -> Result<Disk, StartError> {
        let _step = steps.begin("disk");
        let (disks, workspace, size) =
            (self.inner.disks.clone(), request.workspace_id.clone(), request.limits.disk_bytes);
        Ok(tokio::task::spawn_blocking(move || disks.take(&workspace, size))
            .await
            .map_err(|_| StartError::Broken("disk"))??)
    }

    async fn start_network(&self, request: &StartRequest, steps: &Steps) -> Result<(Network, Resolved), StartError> {
        let _step = steps.begin("network");
        let networks = self.inner.networks.clone();
        let resolved = networks.resolve(&request.allow_private_hosts).await;
        let openings: Vec<Opening> = resolved.openings.clone();
        let network = tokio::task::spawn_blocking(move || {
            let network = networks.take()?;
            match networks.open_services(network.slot, openings) {
                Ok(()) => Ok(network),
                Err(error) => {
                    if let Err(error) = networks.release(network.slot) {
                        tracing::warn!(error = chain(&error), "a network stays until the next start of the node agent");
                    }
                    Err(error)
                }
            }
        });
        Ok((network.await.map_err(|_| StartError::Broken("network"))??, resolved))
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
        let request = &record.request;
        let folder = self.inner.home.instance(&request.instance_id);
        let file_error = |path: &Path| {
            let path = path.display().to_string();
            move |source| StartError::File { path, source }
        };
        let bundle = folder.display().to_string();
        std::fs::create_dir_all(folder.join("rootfs")).map_err(file_error(&folder))?;
        record.write(&folder).map_err(file_error(&folder))?;
        let small_files = [
            ("hosts", files::hosts(&request.hostname, network.address, &resolved.names)),
            ("hostname", format!("{}\n", request.hostname)),
            ("resolv.conf", self.inner.networks.resolv_conf(network.slot)),
            ("gitconfig", files::git_config(&request.git.name, &request.git.email)),
        ];
        for (name, content) in small_files {
            std::fs::write(folder.join(name), content).map_err(file_error(&folder.join(name)))?;
        }
        let base = network.slot.uid_base();
        let program = &self.inner.programs.berth_init;
        let rootfs = rootfs::build(
            program,
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
        let userns = {
            use std::os::fd::AsRawFd;
            format!("/proc/{}/fd/{}", std::process::id(), rootfs.userns.as_raw_fd())
        };
        let init = program.display().to_string();
        let namespace = network.namespace.display().to_string();
        let spec = config::spec(&Inputs {
            instance: &request.instance_id,
            cgroup: &config::cgroup(self.inner.home.root()),
            hostname: &request.hostname,
            bundle: &bundle,
            init: &init,
            user_namespace: &userns,
            network_namespace: &namespace,
            image_env: &image.config.env,
            user: &image.config.user,
            env: &request.env,
            cwd: &request.checkout.path,
            limits: &request.limits,
            disk_device: disk.device(),
        });
        let config_path = folder.join("config.json");
        let json =
            serde_json::to_vec(&spec).map_err(|error| StartError::File { path: bundle, source: error.into() })?;
        std::fs::write(&config_path, json).map_err(file_error(&config_path))?;
        let listener = crate::supervisor::listen(&folder).map_err(file_error(&folder.join("supervisor.sock")))?;
        let mut spec = monitor::Spec::new(&folder, &request.instance_id, &self.inner.programs.hull);
        spec.runtime_args = self.inner.runtime.global_arguments();
        spec.log_max_bytes = self.inner.config.max_log_bytes;
        let mut handle = {
            use std::os::fd::AsFd;
            monitor::spawn(program, &spec, listener.as_fd())?
        };
        // The root file system's user namespace must be held until the container's first process is in it.
        handle.wait_started(CONTAINER_TIMEOUT, |_| {})?;
        drop(rootfs);
        Ok(handle)
    }

    /// The content, once a disk; then the supervisor's word that all is there.
    fn content<'s>(
        &'s self,
        instance: Arc<Instance>,
        request: &'s StartRequest,
        steps: &'s Steps,
        cancel: &'s CancellationToken,
    ) -> BoxFuture<'s, Result<Ready, StartError>> {
        Box::pin(self.make_content(instance, request, steps, cancel))
    }

    async fn make_content(
        &self,
        instance: Arc<Instance>,
        request: &StartRequest,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Ready, StartError> {
        let mut instance = instance;
        let (initialized, fresh) =
            instance.with_disk(|disk| (disk.record.initialized, disk.fresh)).unwrap_or((true, false));
        if !initialized {
            let step = steps.begin("checkout");
            let tell = step.teller();
            self.make_checkout(&instance, request, fresh, tell.as_ref()).await?;
            if request.image.is_none()
                && let Some(found) =
                    checkout::read_devcontainer(&instance.folder, &request.checkout, tell.as_ref()).await?
            {
                match found.image {
                    Some(image) => {
                        tell(format!("devcontainer.json wants the image {image}: starting again in it"));
                        instance = self.change_image(request, &image, steps, cancel).await?;
                        self.make_checkout(&instance, request, true, tell.as_ref()).await?;
                        tell(format!("in the image {image} of devcontainer.json"));
                    }
                    None if found.wants_build() => tell(
                        "devcontainer.json wants an image built, which Berth does not do yet: the base image is used"
                            .to_owned(),
                    ),
                    None => {}
                }
            }
        }
        let step = steps.begin("ready");
        let hello = async {
            let mut client = crate::supervisor::client(&instance.folder).await?;
            client.hello().await
        };
        match tokio::time::timeout(HELLO_TIMEOUT, hello).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(StartError::Supervisor(error)),
            Err(_) => return Err(StartError::Supervisor(berth_supervisor_client::ClientError::Closed)),
        }
        instance
            .update(|record| record.ready = true)
            .map_err(|source| StartError::File { path: instance.folder.display().to_string(), source })?;
        drop(step);
        if !initialized {
            // From here on the content is the user's. The mark must not be on the disk before the content is, and that can take its time:
            // until then the record above says it.
            let marked = instance.clone();
            tokio::task::spawn_blocking(move || {
                let done =
                    marked.with_disk(|disk| disk.sync().and_then(|()| disk.update(|record| record.initialized = true)));
                if let Some(Err(error)) = done {
                    tracing::error!(error = chain(&error), "a new workspace's content cannot be written down");
                }
            });
        }
        let image = instance.record().image.unwrap_or_default();
        Ok(Ready { instance, image })
    }

    async fn make_checkout(
        &self,
        instance: &Instance,
        request: &StartRequest,
        fresh: bool,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), StartError> {
        if !fresh {
            // A start before this one was interrupted, by a power cut perhaps. What it left may be a user's work: it is moved, not removed.
            checkout::set_aside(&instance.folder, &request.checkout.path, self.inner.clock.now().timestamp()).await?;
        }
        let limit = Duration::from_secs(self.inner.config.checkout_timeout_seconds);
        let user = instance.record().user;
        let made =
            checkout::run(&instance.folder, &request.checkout, &user, &request.allow_private_hosts, limit, tell).await;
        if made.is_err() {
            // Not worth more than a try: the container may be gone.
            let _ = checkout::clean(&instance.folder, &request.checkout.path).await;
        }
        Ok(made?)
    }

    /// The same instance in another image, on an empty disk: nothing of a user is on it yet.
    async fn change_image(
        &self,
        request: &StartRequest,
        image: &str,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Arc<Instance>, StartError> {
        // Looked for first: should the image not exist, nothing was stopped for it.
        let allowed = request.allow_private_hosts.iter().chain(&self.inner.config.allow_private_registries);
        let guard =
            berth_http::outbound::Guard::new(allowed.map(String::as_str)).unwrap_or_else(|_| self.inner.guard.clone());
        {
            let step = steps.begin("image");
            self.inner.images.get(image, &guard, step.teller()).await?;
        }
        self.stop(&request.instance_id, Duration::from_millis(500)).await;
        self.forget(&request.instance_id);
        let (disks, workspace, size) =
            (self.inner.disks.clone(), request.workspace_id.clone(), request.limits.disk_bytes);
        tokio::task::spawn_blocking(move || {
            disks.delete(&workspace).and_then(|()| disks.take(&workspace, size).map(drop))
        })
        .await
        .map_err(|_| StartError::Broken("disk"))??;
        self.container(request, Some(image), steps, cancel).await
    }
}
