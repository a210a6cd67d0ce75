//! The node without Kubernetes: its stores, and the instances that run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_clock::SharedClock;
use berth_http::outbound::Guard;
use berth_sandbox::monitor::{self, Exit, MonitorError, MonitorHandle, Outcome};
use rustix::fs::FlockOperation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::leftovers;
use super::programs::{ProgramError, Programs};
use super::record::{self, Ended, Record};
use super::runtime::Runtime;
use crate::config::{Config, ConfigError};
use crate::credentials::{Asker, CredentialSource, serve};
use crate::disk::{Disk, DiskError, DiskStore};
use crate::error_text::chain;
use crate::home::{Home, HomeError};
use crate::image::layout::LayoutError;
use crate::image::unpack::Limits as LayerLimits;
use crate::image::{self, ImageStore};
use crate::network::{LinkError, NetworkPool, Slot, choose_subnets};

/// The node cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Folders.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another agent.
    #[error("another node agent runs on {}: stop it first (`berth server stop`)", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The lock's file, or a record.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Programs.
    #[error(transparent)]
    Programs(#[from] ProgramError),
    /// Images.
    #[error(transparent)]
    Images(#[from] LayoutError),
    /// Disks.
    #[error(transparent)]
    Disks(#[from] DiskError),
    /// Networks.
    #[error(transparent)]
    Networks(#[from] LinkError),
    /// A monitor's files.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// Allowed registries.
    #[error(transparent)]
    Registries(#[from] berth_http::outbound::BadAllowEntry),
}

/// A machine that runs workspaces.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) home: Home,
    pub(super) clock: SharedClock,
    pub(super) images: ImageStore,
    pub(super) disks: DiskStore,
    pub(super) networks: NetworkPool,
    pub(super) programs: Programs,
    pub(super) runtime: Runtime,
    pub(super) credentials: Arc<dyn CredentialSource>,
    pub(super) guard: Guard,
    pub(super) boot_id: String,
    pub(super) starting: tokio::sync::Semaphore,
    instances: Mutex<BTreeMap<String, Arc<Instance>>>,
    /// Cancelled when this agent lets go of everything that runs.
    detached: CancellationToken,
    /// Locked for as long as this value lives.
    _lock: File,
}

/// An instance on the node, running or ended.
#[derive(Debug)]
pub struct Instance {
    /// Its folder.
    pub folder: PathBuf,
    record: Mutex<Record>,
    pub(super) disk: Mutex<Option<Disk>>,
    ended: watch::Sender<Option<Ended>>,
    credentials: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Instance {
    /// What is written down of it.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record and writes it down.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> std::io::Result<()> {
        let mut record = self.lock();
        change(&mut record);
        record.write(&self.folder)
    }

    /// Works on the disk; nothing when it was given back.
    pub(super) fn with_disk<T>(&self, work: impl FnOnce(&mut Disk) -> T) -> Option<T> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Waits for its end: the container gone, nothing of it left, the disk at rest.
    pub async fn wait_ended(&self) -> Ended {
        let mut receiver = self.ended.subscribe();
        loop {
            if let Some(ended) = receiver.borrow_and_update().clone() {
                return ended;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Node {
    /// Brings the node up: takes over what runs, cleans up what does not, fills the pools. Two nodes on one home are refused.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn open(config: Config, clock: SharedClock, credentials: Arc<dyn CredentialSource>) -> Result<Self, NodeError> {
        config.validate()?;
        let config = Config { subnets: choose_subnets(config.subnets, &config.home), ..config };
        let home = Home::new(&config.home);
        home.create()?;
        let lock_path = home.lock();
        let lock = File::create(&lock_path).map_err(|source| NodeError::File { path: lock_path.clone(), source })?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| NodeError::Locked { path: lock_path })?;

        let programs = Programs::install(home.root(), config.hull.as_deref(), config.berth_init.as_deref())?;
        let runtime =
            Runtime { program: programs.hull.clone(), root: home.hull_root(), options: config.hull_options.clone() };
        let boot_id = record::boot_id();
        let found = find(&home, &boot_id)?;
        let live: BTreeSet<String> = found.live.iter().map(|(record, ..)| record.request.instance_id.clone()).collect();
        sweep(&home, &runtime, &live, &found)?;

        let disks = DiskStore::open(home.disks())?;
        let taken: Vec<(Slot, Vec<_>)> =
            found.live.iter().map(|(record, ..)| (record.slot, record.openings.clone())).collect();
        let networks = NetworkPool::open(home.network(), config.subnets, config.ready_networks, &taken)?;
        let limits = LayerLimits { bytes: config.max_layer_bytes, ..LayerLimits::default() };
        let images = ImageStore::open(home.images(), limits, Duration::from_secs(config.image_refresh_seconds))?;
        let guard = Guard::new(config.allow_private_registries.iter().map(String::as_str))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let starting = tokio::sync::Semaphore::new(config.parallel_starts.unwrap_or(processors * 4));
        let inner = Inner {
            config,
            home,
            clock,
            images,
            disks,
            networks,
            programs,
            runtime,
            credentials,
            guard,
            boot_id,
            starting,
            instances: Mutex::default(),
            detached: CancellationToken::new(),
            _lock: lock,
        };
        let node = Self { inner: Arc::new(inner) };
        for (record, folder, handle) in found.live {
            node.adopt(record, folder, handle);
        }
        for (record, folder) in found.over {
            node.bury(record, folder);
        }
        Ok(node)
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Its images.
    #[must_use]
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Its disks.
    #[must_use]
    pub fn disks(&self) -> &DiskStore {
        &self.inner.disks
    }

    /// Its networks.
    #[must_use]
    pub fn networks(&self) -> &NetworkPool {
        &self.inner.networks
    }

    /// The clock it was given.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// Builds or finds the base image, so that the first workspace does not wait for it.
    ///
    /// # Errors
    /// See [`image::ImageError`].
    pub async fn prepare(&self, progress: image::Progress) -> Result<image::Image, image::ImageError> {
        self.inner.images.get(image::base::BASE, &self.inner.guard, progress).await
    }

    /// Keeps the pools filled; runs until it is dropped.
    pub async fn keep_pools(&self) {
        tokio::join!(self.inner.networks.keep_ready(), self.inner.disks.keep_blanks());
    }

    pub(super) fn instances_lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Instance>>> {
        self.inner.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance by id, running or ended.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<Arc<Instance>> {
        self.instances_lock().get(id).cloned()
    }

    /// All instances, running or ended.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.instances_lock().values().cloned().collect()
    }

    /// A connection to the supervisor of a running instance.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn connect(&self, id: &str) -> std::io::Result<tokio::net::UnixStream> {
        let instance = self.instance(id).filter(|instance| instance.ended().is_none());
        let instance = instance
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the instance does not run here"))?;
        crate::supervisor::connect(&instance.folder).await
    }

    /// Puts a running container among the instances: its end is watched, its questions for credentials are answered.
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
                    // The guard says nothing more than that it ended.
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

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.clock.now().timestamp_millis()).unwrap_or(0)
    }

    /// Clears away everything of an ended container but its record and logs, brings the disk to rest, and says that it is over.
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
            tracing::error!(instance = id, "clearing away an ended workspace was broken off");
        }
        let disk_error = match resting {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some("writing the disk down was broken off".to_owned()),
        };
        let ended = Ended { exit, node_restarted, disk_error };
        if let Err(error) = instance.update(|record| record.ended = Some(ended.clone())) {
            tracing::warn!(instance = id, %error, "the end of a workspace cannot be written down");
        }
        instance.ended.send_replace(Some(ended));
    }

    /// Takes over a container that ran while no agent did.
    fn adopt(&self, record: Record, folder: PathBuf, handle: MonitorHandle) {
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
    fn bury(&self, mut record: Record, folder: PathBuf) {
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

    /// Forgets an ended instance with its logs. Nothing happens while it runs.
    pub fn forget(&self, id: &str) {
        let Some(instance) = self.instance(id).filter(|instance| instance.ended().is_some()) else { return };
        if let Err(error) = leftovers::unmount_below(&instance.folder)
            .map_err(std::io::Error::from)
            .and_then(|()| image::unpack::remove_tree(&instance.folder))
        {
            tracing::warn!(instance = id, %error, "the folder of an ended workspace stays until the next start");
        }
        self.instances_lock().remove(id);
    }

    /// Lets go of everything that runs, without touching it: nothing is watched or answered any more, and when the last clone of this value
    /// is dropped another agent can take over.
    pub fn detach(&self) {
        self.inner.detached.cancel();
        for instance in self.instances() {
            if let Some(serving) = instance.credentials.lock().unwrap_or_else(PoisonError::into_inner).take() {
                serving.abort();
            }
        }
        self.instances_lock().clear();
    }

    /// Takes the node out of service: pools emptied, disks unmounted where nothing runs, packet filter and forwarding as they were.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn close(&self) -> Result<(), NodeError> {
        self.inner.disks.close()?;
        Ok(self.inner.networks.close()?)
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

struct Found {
    live: Vec<(Record, PathBuf, MonitorHandle)>,
    over: Vec<(Record, PathBuf)>,
    /// Folders of starts that were interrupted before anything ran.
    unborn: Vec<PathBuf>,
}

/// What the folders of instances say about them.
fn find(home: &Home, boot_id: &str) -> Result<Found, NodeError> {
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
            Some(handle) => found.live.push((record, folder, handle)),
            None if began => found.over.push((record, folder)),
            None => found.unborn.push(folder),
        }
    }
    Ok(found)
}

/// Removes everything of ours that belongs to no live instance. Networks, disks and images clean up after themselves when they are opened.
fn sweep(home: &Home, runtime: &Runtime, live: &BTreeSet<String>, found: &Found) -> Result<(), NodeError> {
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
        image::unpack::remove_tree(folder).map_err(|source| NodeError::File { path: folder.clone(), source })?;
    }
    tracing::debug!(home = %home.root().display(), live = live.len(), "swept the node");
    Ok(())
}
