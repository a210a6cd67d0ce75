//! The cluster as ws-manager uses it: the caches, and the few writes, whose answers complete the caches.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use berth_workspace_crd::{
    DISK_FINALIZER, Disk, LABEL_INSTANCE, LABEL_MANAGED_BY, MANAGED_BY, Phase, Workspace, WorkspaceClass, WorkspaceSpec,
};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::response::reason;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::cache::{Cache, Change, follow};
use crate::directory::Directory;
use crate::domain::actions::Hold;
use crate::domain::view::{Nodes, is_ready};

/// Field manager of everything written here.
pub(crate) const MANAGER: &str = "berth-ws-manager";

/// Clients, caches, and whom to wake.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) workspaces: Arc<Cache<Workspace>>,
    pub(crate) pods: Arc<Cache<Pod>>,
    pub(crate) disks: Arc<Cache<Disk>>,
    pub(crate) classes: Arc<Cache<WorkspaceClass>>,
    nodes: Arc<Cache<Node>>,
    known_nodes: RwLock<Arc<Nodes>>,
    pub(crate) directory: Directory,
    // The controller asks a store for the object behind a reference. This one holds names only: the objects are in `workspaces`, once.
    names: Mutex<Writer<Workspace>>,
    pub(crate) store: Store<Workspace>,
    /// A class came, changed or went.
    pub(crate) classes_changed: Notify,
    // The running controller, if this replica leads.
    wake: Mutex<Option<mpsc::UnboundedSender<ObjectRef<Workspace>>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: String) -> Self {
        let mut names = Writer::new(());
        // Empty and complete: events come through `workspace_changed`.
        names.apply_watcher_event(&Event::Init);
        names.apply_watcher_event(&Event::InitDone);
        let store = names.as_reader();
        Self {
            client,
            namespace,
            names: Mutex::new(names),
            store,
            workspaces: Arc::default(),
            pods: Arc::default(),
            disks: Arc::default(),
            classes: Arc::default(),
            nodes: Arc::default(),
            known_nodes: RwLock::default(),
            directory: Directory::default(),
            classes_changed: Notify::new(),
            wake: Mutex::default(),
        }
    }

    /// Every node, as of now.
    pub(crate) fn nodes(&self) -> Arc<Nodes> {
        self.known_nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when every kind was listed once.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.workspaces.synced(),
            self.pods.synced(),
            self.disks.synced(),
            self.classes.synced(),
            self.nodes.synced()
        );
    }

    /// Makes this controller, which is about to run, the one that is woken.
    pub(crate) fn wake_by(&self) -> mpsc::UnboundedReceiver<ObjectRef<Workspace>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        // It begins by looking at everything.
        self.workspaces.all().iter().for_each(|workspace| self.wake(&workspace.name_any()));
        receiver
    }

    fn wake(&self, instance: &str) {
        if let Some(sender) = self.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // A controller that has just ended need not be woken: the next one looks at everything.
            sender.send(ObjectRef::new(instance).within(&self.namespace)).ok();
        }
    }

    /// Wakes the controller for each instance that is not over and passes the test.
    fn wake_where(&self, test: impl Fn(&Workspace) -> bool) {
        for workspace in self.workspaces.all() {
            let over = workspace.status.as_ref().is_some_and(|status| status.phase == Phase::Stopped);
            if !over && test(&workspace) {
                self.wake(&workspace.name_any());
            }
        }
    }

    /// Follows every kind, for ever.
    pub(crate) fn follow(self: &Arc<Self>) -> BoxFuture<'static, ()> {
        // Also workspaces that somebody made with kubectl, without our labels.
        let workspaces = follow(self.api::<Workspace>(), watcher::Config::default(), self.workspaces.clone(), {
            let cluster = self.clone();
            move |change| cluster.workspace_changed(&change)
        });
        let ours = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
        let pods = follow(self.api::<Pod>(), ours, self.pods.clone(), {
            let cluster = self.clone();
            move |change| cluster.pod_changed(&change)
        });
        let disks = follow(self.api::<Disk>(), watcher::Config::default(), self.disks.clone(), {
            let cluster = self.clone();
            move |change| cluster.disk_changed(&change)
        });
        let classes = follow(Api::all(self.client.clone()), watcher::Config::default(), self.classes.clone(), {
            let cluster = self.clone();
            move |change: Change<WorkspaceClass>| {
                let name = change.new.as_ref().or(change.old.as_ref()).map(|class| class.name_any());
                cluster.wake_where(|workspace| Some(&workspace.spec.class) == name.as_ref());
                cluster.classes_changed.notify_one();
            }
        });
        let nodes = follow(Api::all(self.client.clone()), watcher::Config::default(), self.nodes.clone(), {
            let cluster = self.clone();
            move |change| cluster.node_changed(&change)
        });
        Box::pin(async move {
            tokio::join!(workspaces, pods, disks, classes, nodes);
        })
    }

    fn workspace_changed(&self, change: &Change<Workspace>) {
        self.directory.publish(change);
        let Some(workspace) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let name = workspace.name_any();
        if change.old.is_none() || change.new.is_none() {
            let mut stub = Workspace::new(&name, WorkspaceSpec::default());
            stub.metadata.namespace = Some(self.namespace.clone());
            let event = if change.new.is_some() { Event::Apply(stub) } else { Event::Delete(stub) };
            self.names.lock().unwrap_or_else(PoisonError::into_inner).apply_watcher_event(&event);
        }
        if change.new.is_some() {
            self.wake(&name);
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.new.as_ref().or(change.old.as_ref());
        if let Some(instance) = pod.and_then(|pod| pod.labels().get(LABEL_INSTANCE)) {
            self.wake(instance);
        }
    }

    fn disk_changed(&self, change: &Change<Disk>) {
        // On which node it is matters, how full it is does not.
        let place = |disk: &Option<Arc<Disk>>| disk.as_ref().map(|disk| disk.spec.node.clone());
        if place(&change.old) != place(&change.new)
            && let Some(disk) = change.new.as_ref().or(change.old.as_ref())
        {
            let id = disk.name_any();
            self.wake_where(|workspace| workspace.spec.workspace_id == id);
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        // Heartbeats change nodes all the time; only their coming, going and readiness count.
        let state = |node: &Option<Arc<Node>>| node.as_deref().map(is_ready);
        if state(&change.old) == state(&change.new) {
            return;
        }
        let nodes = Nodes::new(self.nodes.all().iter().map(Arc::as_ref));
        *self.known_nodes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(nodes);
        self.wake_where(|_| true);
    }

    /// Takes the answer to a write of our own, and tells watchers at once instead of when the watch delivers it.
    pub(crate) fn note_workspace(&self, workspace: Workspace) {
        if let Some(change) = self.workspaces.note(workspace) {
            self.workspace_changed(&change);
        }
    }

    fn forget_workspace(&self, name: &str) {
        if let Some(change) = self.workspaces.forget(name) {
            self.workspace_changed(&change);
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a workspace object; an error of kind [`Outcome::Exists`] if the name is taken.
    pub(crate) async fn create_workspace(&self, workspace: &Workspace) -> Result<Outcome<Workspace>, kube::Error> {
        let result = self.api::<Workspace>().create(&post(), workspace).await;
        let outcome = Outcome::of(result)?;
        if let Outcome::Done(made) = &outcome {
            self.note_workspace(made.clone());
        }
        Ok(outcome)
    }

    /// Merges into the status of a workspace; `None`: it does not exist (any more).
    pub(crate) async fn patch_status(&self, name: &str, patch: &Value) -> Result<Option<Workspace>, kube::Error> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let result = self.api::<Workspace>().patch_status(name, &params, &Patch::Merge(patch)).await;
        self.patched(name, result)
    }

    /// Merges into a workspace, except its status; `None`: it does not exist (any more).
    pub(crate) async fn patch_workspace(&self, name: &str, patch: &Value) -> Result<Option<Workspace>, kube::Error> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let result = self.api::<Workspace>().patch(name, &params, &Patch::Merge(patch)).await;
        self.patched(name, result)
    }

    fn patched(&self, name: &str, result: Result<Workspace, kube::Error>) -> Result<Option<Workspace>, kube::Error> {
        match Outcome::of(result)? {
            Outcome::Done(workspace) => {
                self.note_workspace(workspace.clone());
                Ok(Some(workspace))
            }
            Outcome::Gone | Outcome::Exists => {
                self.forget_workspace(name);
                Ok(None)
            }
        }
    }

    /// Deletes a workspace object: its controller stops it first if it is not over. False: it does not exist (any more).
    pub(crate) async fn delete_workspace(&self, name: &str) -> Result<bool, kube::Error> {
        match Outcome::of(self.api::<Workspace>().delete(name, &DeleteParams::default()).await)? {
            Outcome::Done(either) => {
                if let Some(workspace) = either.left() {
                    self.note_workspace(workspace);
                }
                Ok(true)
            }
            Outcome::Gone | Outcome::Exists => {
                self.forget_workspace(name);
                Ok(false)
            }
        }
    }

    /// Removes our finalizer from a workspace that is being deleted.
    pub(crate) async fn release_workspace(&self, name: &str, hold: &Hold) -> Result<(), kube::Error> {
        let result = self.api::<Workspace>().patch(name, &PatchParams::default(), &Patch::Merge(release(hold))).await;
        Outcome::of(result).map(drop)
    }

    /// Makes a pod; if it exists already, it is the one that was wanted.
    pub(crate) async fn create_pod(&self, pod: &Pod) -> Result<(), kube::Error> {
        let pods = self.api::<Pod>();
        let made = match Outcome::of(pods.create(&post(), pod).await)? {
            Outcome::Done(made) => made,
            Outcome::Exists | Outcome::Gone => pods.get(&pod.name_any()).await?,
        };
        self.pods.note(made);
        Ok(())
    }

    /// Deletes this very pod.
    pub(crate) async fn delete_pod(&self, name: &str, uid: &str, grace: Option<u32>) -> Result<(), kube::Error> {
        let params = DeleteParams {
            grace_period_seconds: grace,
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let result = self.api::<Pod>().delete(name, &params).await;
        self.pod_deleted(name, result)
    }

    fn pod_deleted(
        &self,
        name: &str,
        result: Result<either::Either<Pod, kube::core::Status>, kube::Error>,
    ) -> Result<(), kube::Error> {
        match Outcome::of(result)? {
            Outcome::Done(either) => {
                // If the pod goes at once, the answer is the pod as it was; the watch tells the rest.
                if let Some(pod) = either.left().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                    self.pods.note(pod);
                }
            }
            Outcome::Gone | Outcome::Exists => {
                self.pods.forget(name);
            }
        }
        Ok(())
    }

    /// Removes our finalizer from exactly this pod.
    pub(crate) async fn release_pod(&self, name: &str, hold: &Hold) -> Result<(), kube::Error> {
        let result = self.api::<Pod>().patch(name, &PatchParams::default(), &Patch::Merge(release(hold))).await;
        if matches!(Outcome::of(result)?, Outcome::Gone) {
            self.pods.forget(name);
        }
        Ok(())
    }

    /// Deletes a disk object, and its bytes with it. If its node is gone for good nobody is left to wipe the bytes, and only the object goes.
    pub(crate) async fn delete_disk(&self, name: &str) -> Result<bool, kube::Error> {
        let disks = self.api::<Disk>();
        let Outcome::Done(either) = Outcome::of(disks.delete(name, &DeleteParams::default()).await)? else {
            return Ok(false);
        };
        let Some(disk) = either.left() else { return Ok(true) };
        if !self.nodes().exists(&disk.spec.node)
            && let Some(hold) = Hold::of(&disk, DISK_FINALIZER)
        {
            Outcome::of(disks.patch(name, &PatchParams::default(), &Patch::Merge(release(&hold))).await)?;
        }
        Ok(true)
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// A merge patch that removes a finalizer if the object is the same, and unchanged since it was seen.
fn release(hold: &Hold) -> Value {
    json!({ "metadata": { "uid": hold.uid, "resourceVersion": hold.version, "finalizers": hold.rest } })
}

/// An answer of the API server, with the two refusals that are no errors to a reconciler.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// As asked.
    Done(T),
    /// There is no such object, or not that one.
    Gone,
    /// There is one already.
    Exists,
}

impl<T> Outcome<T> {
    fn of(result: Result<T, kube::Error>) -> Result<Self, kube::Error> {
        match result {
            Ok(value) => Ok(Self::Done(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Self::Gone),
            Err(kube::Error::Api(status)) if status.reason == reason::ALREADY_EXISTS => Ok(Self::Exists),
            Err(error) => Err(error),
        }
    }
}
