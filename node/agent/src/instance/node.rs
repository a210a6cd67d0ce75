//! The node without Kubernetes: its stores, and the instances that run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_clock::SharedClock;
use berth_http::outbound::Guard;
use berth_layer::Limits as LayerLimits;
use berth_sandbox::monitor::MonitorError;
use rustix::fs::FlockOperation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::programs::{ProgramError, Programs};
use super::record::{self, Ended, Record};
use super::runtime::Runtime;
use super::steps::START_LOG_FILE;
use super::{UnderWay, leftovers, takeover};
use crate::config::{Config, ConfigError};
use crate::credentials::CredentialSource;
use crate::disk::{Disk, DiskError, DiskStore};
use crate::home::{Home, HomeError};
use crate::image::layout::LayoutError;
use crate::image::{self, ImageStore};
use crate::network::{LinkError, NetworkPool, Slot, SubnetsUsed, choose_subnets};

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
    /// Addresses.
    #[error(transparent)]
    Subnets(#[from] SubnetsUsed),
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
    pub(super) under_way: UnderWay,
    instances: Mutex<BTreeMap<String, Arc<Instance>>>,
    /// Cancelled when this agent lets go of everything that runs.
    pub(super) detached: CancellationToken,
    /// Locked for as long as this value lives.
    _lock: File,
}

/// An instance on the node, running or ended.
#[derive(Debug)]
pub struct Instance {
    /// Its folder.
    pub folder: PathBuf,
    pub(super) record: Mutex<Record>,
    pub(super) disk: Mutex<Option<Disk>>,
    pub(super) ended: watch::Sender<Option<Ended>>,
    pub(super) credentials: Mutex<Option<tokio::task::AbortHandle>>,
    /// Held by whoever forgets it: what is left is moved and removed once.
    pub(super) forgetting: Mutex<()>,
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

    /// Works on the disk; does nothing if it has been released.
    pub(super) fn with_disk<T>(&self, work: impl FnOnce(&mut Disk) -> T) -> Option<T> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Waits for its end: the container gone, nothing of it left, the disk synced.
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
    /// Starts the node: takes over what runs, cleans up what does not, fills the pools. Two nodes on one home are refused.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn open(config: Config, clock: SharedClock, credentials: Arc<dyn CredentialSource>) -> Result<Self, NodeError> {
        config.validate()?;
        let config = Config { subnets: choose_subnets(config.subnets, &config.home)?, ..config };
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
        let found = takeover::find(&home, &boot_id)?;
        let live: BTreeSet<String> = found.live.iter().map(|(record, ..)| record.request.instance_id.clone()).collect();
        takeover::sweep(&home, &runtime, &live, &found)?;
        if live.is_empty() {
            programs.remove_others();
        }

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
            under_way: UnderWay::default(),
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
        let starts = &self.inner.under_way;
        tokio::join!(self.inner.networks.keep_ready(starts.quiet()), self.inner.disks.keep_blanks(starts.quiet()));
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

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.clock.now().timestamp_millis()).unwrap_or(0)
    }

    /// Appends to an instance's start log. An instance whose start failed before it had a folder has none.
    pub(crate) fn log_start(&self, id: &str, text: &str) {
        let Some(instance) = self.instance(id) else { return };
        let file = File::options().create(true).append(true).open(instance.folder.join(START_LOG_FILE));
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            tracing::warn!(instance = id, %error, "the log of a start cannot be written");
        }
    }

    /// Forgets an ended instance; its log is kept with its workspace's disk. Does nothing while it runs. When several ask
    /// for it at once, one of them does it.
    pub fn forget(&self, id: &str) {
        let Some(instance) = self.instance(id).filter(|instance| instance.ended().is_some()) else { return };
        let _turn = instance.forgetting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.instance(id).is_some_and(|known| Arc::ptr_eq(&known, &instance)) {
            return;
        }
        let workspace = instance.record().request.workspace_id;
        if let Err(error) = self.inner.disks.keep_log(&workspace, id, &instance.folder) {
            tracing::warn!(instance = id, %error, "the log of an ended workspace is lost");
        }
        self.instances_lock().remove(id);
        if let Err(error) = leftovers::unmount_below(&instance.folder)
            .map_err(std::io::Error::from)
            .and_then(|()| berth_layer::remove::tree(&instance.folder))
        {
            tracing::warn!(instance = id, %error, "the folder of an ended workspace stays until the next start");
        }
    }

    /// Lets go of everything that runs, without touching it: from here on nothing is watched or answered, and once the last clone of this
    /// value is dropped another agent can take over.
    pub fn detach(&self) {
        self.inner.detached.cancel();
        for instance in self.instances() {
            if let Some(serving) = instance.credentials.lock().unwrap_or_else(PoisonError::into_inner).take() {
                serving.abort();
            }
        }
        self.instances_lock().clear();
    }

    /// Takes the node out of service: pools emptied, disks unmounted where nothing runs, cgroups removed, packet filter and forwarding as
    /// they were.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn close(&self) -> Result<(), NodeError> {
        self.inner.disks.close()?;
        leftovers::remove_empty_parents(self.inner.home.root());
        Ok(self.inner.networks.close()?)
    }
}
