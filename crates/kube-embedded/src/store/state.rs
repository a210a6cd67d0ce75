//! The committed objects in memory, with enough history to list the past and to resume watches.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::object::{Address, CollectionName, Key, Object};

/// How much history a collection keeps. Beyond either bound the oldest event is dropped, and whoever needs it gets 410.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimit {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Default for HistoryLimit {
    fn default() -> Self {
        Self { events: 8192, bytes: 16 << 20 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One committed change.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
    /// The state after the change; of a deletion, the last state under the deletion's revision.
    pub(crate) object: Arc<Object>,
    /// The state before the change, which selectors need to see an object leave them.
    pub(crate) before: Option<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Event {
    /// The event as every plain watcher of the stored version gets it, serialised once.
    pub(crate) fn line(&self) -> Bytes {
        self.line.get_or_init(|| event_line(self.change.name(), &self.object.bytes)).clone()
    }
}

pub(crate) fn event_line(change: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 32);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(change.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    /// Every event after this revision is in `history`.
    floor: u64,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(floor: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            floor,
            changed: watch::Sender::new(floor),
        }
    }

    /// Events after `revision`, oldest first; `None` when some of them are forgotten.
    pub(crate) fn events_after(&self, revision: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        let start = self.history.partition_point(|event| event.revision <= revision);
        Some(self.history.iter().skip(start).take(limit).cloned().collect())
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The objects of `namespace` (all when `None`) after the key `after`.
    pub(crate) fn range(&self, namespace: Option<&str>, after: Option<&Key>) -> impl Iterator<Item = &Arc<Object>> {
        let first = namespace.map(|namespace| Key::new(namespace, ""));
        let start = match (after, &first) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(first)) => Bound::Included(first.clone()),
            (None, None) => Bound::Unbounded,
        };
        let namespace = namespace.map(str::to_owned);
        self.objects
            .range((start, Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(move |object| namespace.as_deref().is_none_or(|ns| &*object.key.namespace == ns))
    }

    /// The objects as they were at `revision`, made by undoing what came after; `None` when that is forgotten.
    pub(crate) fn at(
        &self,
        revision: u64,
        namespace: Option<&str>,
        after: Option<&Key>,
    ) -> Option<BTreeMap<Key, Arc<Object>>> {
        if revision < self.floor {
            return None;
        }
        let mut objects: BTreeMap<Key, Arc<Object>> =
            self.range(namespace, after).map(|object| (object.key.clone(), object.clone())).collect();
        for event in self.history.iter().rev().take_while(|event| event.revision > revision) {
            let key = &event.object.key;
            if namespace.is_some_and(|ns| ns != &*key.namespace) || after.is_some_and(|after| key <= after) {
                continue;
            }
            match &event.before {
                Some(before) => objects.insert(key.clone(), before.clone()),
                None => objects.remove(key),
            };
        }
        Some(objects)
    }

    fn record(&mut self, event: Arc<Event>, limit: HistoryLimit) {
        self.history_bytes += event.object.bytes.len();
        self.history.push_back(event);
        while self.history.len() > limit.events || self.history_bytes > limit.bytes {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.object.bytes.len();
            self.floor = oldest.revision;
        }
    }
}

/// Everything committed.
#[derive(Debug)]
pub(crate) struct State {
    revision: u64,
    /// The revision the process started at: history before it is unknown.
    started_at: u64,
    limit: HistoryLimit,
    /// The revision again, for those who wait until it reaches a number.
    reached: watch::Sender<u64>,
    collections: HashMap<CollectionName, Collection>,
    by_uid: HashMap<Box<str>, Address>,
    dependents: HashMap<Box<str>, HashSet<Address>>,
}

impl State {
    pub(crate) fn new(revision: u64, limit: HistoryLimit) -> Self {
        Self {
            revision,
            started_at: revision,
            limit,
            reached: watch::Sender::new(revision),
            collections: HashMap::new(),
            by_uid: HashMap::new(),
            dependents: HashMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn collection(&self, name: &str) -> Option<&Collection> {
        self.collections.get(name)
    }

    pub(crate) fn collection_or_new(&mut self, name: &CollectionName) -> &mut Collection {
        let floor = self.started_at;
        self.collections.entry(name.clone()).or_insert_with(|| Collection::new(floor))
    }

    pub(crate) fn get(&self, collection: &str, key: &Key) -> Option<&Arc<Object>> {
        self.collections.get(collection)?.objects.get(key)
    }

    pub(crate) fn address_of_uid(&self, uid: &str) -> Option<&Address> {
        self.by_uid.get(uid)
    }

    pub(crate) fn dependents(&self, uid: &str) -> Vec<Address> {
        self.dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Every non-empty collection's name.
    pub(crate) fn collection_names(&self) -> Vec<CollectionName> {
        self.collections.iter().filter(|(_, c)| !c.objects.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// Puts an object that the backend already holds, without an event.
    pub(crate) fn load(&mut self, collection: &CollectionName, object: Object) {
        let object = Arc::new(object);
        let address = Address { collection: collection.clone(), key: object.key.clone() };
        let before = self.collection_or_new(collection).objects.insert(object.key.clone(), object.clone());
        self.index(&address, before.as_ref(), Some(&object));
    }

    /// Applies one committed write: `object` is the new state, or `None` for a deletion.
    pub(crate) fn apply(
        &mut self,
        address: &Address,
        revision: u64,
        object: Option<Arc<Object>>,
    ) -> Option<Arc<Event>> {
        self.revision = revision;
        let limit = self.limit;
        let collection = self.collection_or_new(&address.collection);
        let (before, event) = match &object {
            Some(object) => {
                let before = collection.objects.insert(address.key.clone(), object.clone());
                let change = if before.is_some() { Change::Modified } else { Change::Added };
                let event =
                    Event { revision, change, object: object.clone(), before: before.clone(), line: OnceLock::new() };
                (before, event)
            }
            None => {
                let before = collection.objects.remove(&address.key)?;
                let last = Arc::new(before.at_revision(revision));
                let event = Event {
                    revision,
                    change: Change::Deleted,
                    object: last,
                    before: Some(before.clone()),
                    line: OnceLock::new(),
                };
                (Some(before), event)
            }
        };
        let event = Arc::new(event);
        collection.record(event.clone(), limit);
        self.index(address, before.as_ref(), object.as_ref());
        Some(event)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// Wakes a collection's watchers, after the whole batch is applied.
    pub(crate) fn wake(&self, collection: &str) {
        self.reached.send_replace(self.revision);
        if let Some(collection) = self.collections.get(collection) {
            collection.changed.send_replace(self.revision);
        }
    }

    fn index(&mut self, address: &Address, before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) {
        let same = matches!((before, after), (Some(b), Some(a)) if b.facts.uid == a.facts.uid && b.facts.owners == a.facts.owners);
        if same {
            return;
        }
        if let Some(before) = before {
            self.by_uid.remove(&before.facts.uid);
            for owner in &before.facts.owners {
                if let Some(set) = self.dependents.get_mut(owner) {
                    set.remove(address);
                    if set.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
        }
        if let Some(after) = after {
            self.by_uid.insert(after.facts.uid.clone(), address.clone());
            for owner in &after.facts.owners {
                self.dependents.entry(owner.clone()).or_default().insert(address.clone());
            }
        }
    }
}
