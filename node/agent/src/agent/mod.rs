//! The node agent over Kubernetes: it watches the pods of its node and makes the machine agree with them.

mod admission;
mod foreign;
mod http;
mod log;
mod machine;
mod node_object;
mod pod;
mod reconcile;
mod report;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::SharedClock;
use berth_http::problem::chain;
use berth_workspace_crd::{DISK_FINALIZER, Disk, LABEL_MANAGED_BY, MANAGED_BY};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::credentials::CredentialSource;
use crate::disk::DiskError;
use crate::image::{Digest, Image, ImageError, Progress};
use crate::instance::{Node, NodeError};
use admission::Admission;
use status::Writer;

/// What the agent is given.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The clock.
    pub clock: SharedClock,
    /// Where git credentials come from.
    pub credentials: Arc<dyn CredentialSource>,
}

/// The agent cannot be brought up.
pub type AgentError = NodeError;

/// The node agent. Clones share one agent.
#[derive(Clone)]
pub struct NodeAgent {
    inner: Arc<Inner>,
    client: Client,
}

struct Inner {
    node: Node,
    name: String,
    boot_id: String,
    writer: Writer,
    admission: Admission,
    /// Instances that are being started.
    starting: Mutex<BTreeSet<String>>,
    /// Disk sizes that were asked for, so that blank ones are kept ready.
    sizes: Mutex<BTreeSet<u64>>,
}

impl Inner {
    fn note_start(&self, instance: &str, under_way: bool) {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way {
            starting.insert(instance.to_owned());
        } else {
            starting.remove(instance);
        }
    }

    fn note_size(&self, pod: &Pod) {
        let Ok(limits) = pod::limits(pod) else { return };
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        // There are only a few classes; sizes that were used once are not worth blanks.
        if sizes.len() < 4 && sizes.insert(limits.disk_bytes) {
            self.node.disks().want_blanks(&sizes, self.node.config().blank_disks);
        }
    }
}

/// How often unused images, disks and logs are collected.
const COLLECT_EVERY: Duration = Duration::from_secs(1800);

impl NodeAgent {
    /// Starts the node: see [`Node::open`]. Blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn new(config: Config, client: Client, deps: Deps) -> Result<Self, AgentError> {
        let name = config.node_name();
        let capacity = machine::capacity(&config);
        let writer = Writer::new(&client, deps.clock.clone());
        let node = Node::open(config, deps.clock, deps.credentials)?;
        let inner = Inner {
            node,
            name,
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            writer,
            admission: Admission::new(capacity),
            starting: Mutex::default(),
            sizes: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), client })
    }

    /// The layer without Kubernetes.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `/internal/...`: supervisors, logs, the node's state.
    pub fn internal_router(&self) -> axum::Router {
        http::router(self.inner.clone())
    }

    /// Builds the base image when the node has none.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn prepare_base_image(&self, progress: Progress) -> Result<Image, ImageError> {
        self.inner.node.prepare(progress).await
    }

    /// Takes the node out of service; see [`Node::close`].
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn close(&self) -> Result<(), NodeError> {
        self.inner.node.close()
    }

    /// Runs until `shutdown`. Running workspaces are let go of, not stopped; the next agent takes them over. If there are none, the machine
    /// is left as it was found.
    pub async fn run(&self, shutdown: CancellationToken) {
        let detached = shutdown.child_token();
        let work = async {
            tokio::join!(
                node_object::heartbeat(&self.inner, &self.client),
                self.follow_pods(&detached),
                self.inner.refuse_foreign_pods(),
                self.follow_disks(),
                self.inner.node.keep_pools(),
                self.prepare(),
                self.collect(),
            );
        };
        let _ = shutdown.run_until_cancelled(work).await;
        if self.is_idle() {
            let node = self.inner.node.clone();
            match tokio::task::spawn_blocking(move || node.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "networks and disks of this node stay in the kernel")
                }
                Err(_) => tracing::error!("taking the node out of service was interrupted"),
            }
        }
        self.inner.node.detach();
    }

    /// Whether nothing runs and nothing is being started.
    fn is_idle(&self) -> bool {
        self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            && self.inner.node.instances().iter().all(|instance| instance.ended().is_some())
    }

    async fn prepare(&self) {
        let progress: Progress = Arc::new(|text| tracing::info!("{text}"));
        if let Err(error) = self.prepare_base_image(progress).await {
            tracing::error!(
                error = chain(&error),
                "the base image cannot be built; workspaces without an image of their own will not start"
            );
        }
    }

    /// One task per pod; the watch only forwards events to them.
    async fn follow_pods(&self, detached: &CancellationToken) {
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.inner.name))
            .labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
        let mut events = std::pin::pin!(watcher::watcher(self.inner.writer.pods.clone(), config));
        let mut followed: HashMap<String, watch::Sender<Option<Arc<Pod>>>> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut listed: BTreeSet<String> = BTreeSet::new();
        let mut wait = Duration::from_millis(50);
        while let Some(event) = events.next().await {
            while tasks.try_join_next().is_some() {}
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                    wait = Duration::from_millis(50);
                    let name = pod.name_any();
                    listed.insert(name.clone());
                    self.inner.note_size(&pod);
                    let pod = Some(Arc::new(pod));
                    let known = followed.get(&name).is_some_and(|sender| sender.send(pod.clone()).is_ok());
                    if !known {
                        let (sender, receiver) = watch::channel(pod);
                        tasks.spawn(reconcile::drive(self.inner.clone(), receiver, detached.clone()));
                        followed.insert(name, sender);
                    }
                }
                Ok(Event::Delete(pod)) => {
                    let name = pod.name_any();
                    if let Some(sender) = followed.remove(&name) {
                        sender.send_replace(None);
                    }
                    self.stop_orphan(&pod, &mut tasks);
                }
                Ok(Event::InitDone) => {
                    // Pods that went while nobody watched.
                    followed.retain(|name, sender| {
                        let there = listed.contains(name);
                        if !there {
                            sender.send_replace(None);
                        }
                        there
                    });
                    self.stop_orphans(&listed, &mut tasks);
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the watch of pods broke off, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// Stops an instance whose pod was removed by force: nobody wants it any more. Its disk stays.
    fn stop_orphan(&self, pod: &Pod, tasks: &mut JoinSet<()>) {
        let (Some(id), attempt) = (pod::instance(pod), pod::attempt(pod)) else { return };
        if self.inner.node.instance(id).is_some_and(|instance| instance.record().request.attempt == attempt) {
            tasks.spawn(stop_and_forget(self.inner.clone(), id.to_owned()));
        }
    }

    fn stop_orphans(&self, pods: &BTreeSet<String>, tasks: &mut JoinSet<()>) {
        for instance in self.inner.node.instances() {
            let request = instance.record().request;
            let pod = format!("ws-{}-{}", request.instance_id, request.attempt);
            if !pods.contains(&pod) {
                tracing::info!(instance = request.instance_id, "its pod is gone: stopping it");
                tasks.spawn(stop_and_forget(self.inner.clone(), request.instance_id));
            }
        }
    }

    /// Deletes disks whose objects are deleted, and says what each costs.
    async fn follow_disks(&self) {
        let mut events = std::pin::pin!(watcher::watcher(self.inner.writer.disks.clone(), watcher::Config::default()));
        let mut tasks = JoinSet::new();
        while let Some(event) = events.next().await {
            while tasks.try_join_next().is_some() {}
            match event {
                Ok(Event::Apply(disk) | Event::InitApply(disk)) => {
                    let ours = disk.spec.node == self.inner.name;
                    let held =
                        disk.metadata.finalizers.as_ref().is_some_and(|list| list.iter().any(|f| f == DISK_FINALIZER));
                    if ours && held && disk.metadata.deletion_timestamp.is_some() {
                        tasks.spawn(delete_disk(self.inner.clone(), disk));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the watch of disks broke off, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Gives the host back what deleted files took of the disks.
    async fn trim_disks(&self) {
        let disks = self.inner.node.disks();
        for (workspace, _, _) in disks.list() {
            let (disks, name) = (disks.clone(), workspace.clone());
            match tokio::task::spawn_blocking(move || disks.trim(&name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(workspace, error = chain(&error), "a disk cannot be trimmed"),
                Err(_) => return,
            }
        }
    }

    /// Collects images that nothing uses, and space that disks do not use any more.
    async fn collect(&self) {
        loop {
            tokio::time::sleep(COLLECT_EVERY).await;
            self.trim_disks().await;
            for (workspace, record, used_bytes) in self.inner.node.disks().list() {
                if let Err(error) = self.inner.writer.disk_usage(&workspace, used_bytes, record.initialized).await {
                    tracing::warn!(workspace, error = chain(&error), "the usage of a disk cannot be written");
                }
            }
            let disks = self.inner.node.disks().list().into_iter().filter_map(|(_, record, _)| record.image);
            let running = self.inner.node.instances().into_iter().filter_map(|instance| instance.record().image);
            let keep: BTreeSet<Digest> = disks.chain(running).filter_map(|digest| digest.parse().ok()).collect();
            let min_age = Duration::from_secs(self.inner.node.config().image_max_age_seconds);
            match self.inner.node.images().collect(keep, min_age).await {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(bytes, "removed images that nothing used"),
                Err(error) => tracing::warn!(error = chain(&error), "unused images cannot be removed"),
            }
        }
    }
}

async fn stop_and_forget(agent: Arc<Inner>, id: String) {
    agent.node.stop(&id, Duration::from_secs(agent.node.config().stop_grace_seconds)).await;
    agent.node.forget(&id);
}

/// Deletes the bytes, then lets the object go. Waits for an instance that is still stopping.
async fn delete_disk(agent: Arc<Inner>, disk: Disk) {
    let workspace = disk.name_any();
    let disks = agent.node.disks();
    loop {
        let released = disks.released();
        let (blocking, name) = (disks.clone(), workspace.clone());
        match tokio::task::spawn_blocking(move || blocking.delete(&name)).await {
            Ok(Ok(())) => break,
            Ok(Err(DiskError::Locked(_))) => {
                released.await;
                continue;
            }
            Ok(Err(error)) => {
                tracing::warn!(workspace, error = chain(&error), "a disk cannot be deleted, trying again")
            }
            Err(_) => tracing::error!(workspace, "deleting a disk was interrupted"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while let Err(error) = agent.writer.release_disk(&disk).await {
        tracing::warn!(workspace, error = chain(&error), "a Disk cannot be released, trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
