//! The object store: everything in memory, one writer, and a backend that makes commits durable.
//!
//! Reads never wait for writes beyond a lock held for the time of a lookup. Writes are proposals with an expected
//! revision; the writer orders them, gives the revisions inside the commit and applies them to memory after the backend
//! has them, so a reader or a watcher never sees what a crash could take back.

pub(crate) mod backend;
pub(crate) mod object;
mod postgres;
pub(crate) mod state;
mod writer;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use backend::{Store, StoreError};
pub use postgres::MIGRATION;

use object::{Address, CollectionName, Draft, Key, Object};
use state::{Event, State};

pub(crate) use state::HistoryLimit;

/// The state a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    Revision(u64),
}

/// What a write does.
#[derive(Debug)]
pub(crate) enum Write {
    Put(Draft),
    Delete,
}

#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) address: Address,
    pub(crate) expect: Expect,
    pub(crate) write: Write,
    /// A namespace that must exist and not be terminating when the write commits.
    pub(crate) needs_namespace: Option<Box<str>>,
}

/// Why a write was not carried out.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// The object is there already (a create), with this state.
    Exists(Arc<Object>),
    /// The object changed since it was read, or is gone.
    Changed,
    NamespaceMissing,
    NamespaceTerminating,
    /// The backend did not take the commit.
    Unavailable(String),
}

/// The state after a write; of a deletion, the last state under the deletion's revision.
pub(crate) type Committed = Arc<Object>;

struct Request {
    proposal: Proposal,
    reply: oneshot::Sender<Result<Committed, Refusal>>,
}

/// A handle on the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    state: Arc<RwLock<State>>,
    proposals: mpsc::Sender<Request>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

/// Ends when the server is told to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender is a dropped server.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How long a write waits for its commit: a database that is restarted is back before.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the writer hands to the parts that react to commits (garbage collection, CRDs).
pub(crate) type CommitSink = mpsc::UnboundedSender<(CollectionName, Arc<Event>)>;

impl Objects {
    /// Starts the writer over `state`. The task ends when every handle is gone, or when `stop` turns true and the queue is empty.
    pub(crate) fn start(
        state: State,
        backend: backend::Backend,
        commits: CommitSink,
        stop: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let state = Arc::new(RwLock::new(state));
        let (proposals, queue) = mpsc::channel(1024);
        let task = tokio::spawn(writer::run(state.clone(), backend, queue, commits, stop));
        (Self { state, proposals }, task)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, collection: &str, key: &Key) -> Option<Arc<Object>> {
        self.read().get(collection, key).cloned()
    }

    /// Makes sure the collection is there, so that watches on an empty kind have something to wait on.
    pub(crate) fn open_collection(&self, name: &CollectionName) {
        if self.read().collection(name).is_none() {
            self.write_state().collection_or_new(name);
        }
    }

    /// Hands a write to the writer and waits for its commit.
    pub(crate) async fn propose(&self, proposal: Proposal) -> Result<Committed, Refusal> {
        let (reply, answer) = oneshot::channel();
        let closed = || Refusal::Unavailable("the server is stopping".to_owned());
        self.proposals.send(Request { proposal, reply }).await.map_err(|_| closed())?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| closed())?,
            Err(_) => Err(Refusal::Unavailable(
                "the store did not answer in time; the write may still be carried out".to_owned(),
            )),
        }
    }
}
