//! What this process knows of the cluster: one watch per kind, completed by the answers to its own writes, so that no decision rests on a
//! state older than what it wrote itself.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::domain::instance::version;

/// An object changed: before and after; `None`: it does not exist.
#[derive(Debug)]
pub(crate) struct Change<K> {
    /// As it was known.
    pub(crate) old: Option<Arc<K>>,
    /// As it is.
    pub(crate) new: Option<Arc<K>>,
}

/// The objects of one kind by name. Names are unique here: each cache is of one namespace, or of a cluster-scoped kind.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    inner: RwLock<Inner<K>>,
    synced: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: HashMap<String, Entry<K>>,
    // The newest version that the watch has delivered: an object that is no newer and not here does not exist.
    seen: u64,
    // Counts the lists: an object that was written before a list began and is not in it does not exist.
    lists: u64,
    listing: Option<HashMap<String, Arc<K>>>,
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    // Set for objects that only our own write told us of: the newest list at that time.
    noted: Option<u64>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner { objects: HashMap::new(), seen: 0, lists: 0, listing: None };
        Self { inner: RwLock::new(inner), synced: watch::Sender::new(false) }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Cache<K> {
    /// The object of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).objects.get(name).map(|entry| entry.object.clone())
    }

    /// Every object.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.objects.values().map(|entry| entry.object.clone()).collect()
    }

    /// Resolves when the first list is in.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as `self`: waiting cannot fail.
        self.synced.subscribe().wait_for(|synced| *synced).await.ok();
    }

    /// Takes the answer to a write of our own: it counts unless the watch is already past it.
    pub(crate) fn note(&self, object: K) -> Option<Change<K>> {
        let name = object.name_any();
        let version = version(&object)?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if version <= inner.seen {
            return None;
        }
        let old = inner.objects.get(&name).map(|entry| entry.object.clone());
        if old.as_deref().and_then(crate::domain::instance::version).is_some_and(|known| known >= version) {
            return None;
        }
        let new = Arc::new(slim(object));
        let noted = Some(inner.lists);
        inner.objects.insert(name, Entry { object: new.clone(), noted });
        Some(Change { old, new: Some(new) })
    }

    /// Takes the server's answer that the object does not exist.
    pub(crate) fn forget(&self, name: &str) -> Option<Change<K>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let old = inner.objects.remove(name)?.object;
        Some(Change { old: Some(old), new: None })
    }

    /// Takes an event of the watch.
    pub(crate) fn apply(&self, event: Event<K>) -> Vec<Change<K>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) => {
                let version = version(&object).unwrap_or(0);
                inner.seen = inner.seen.max(version);
                inner.confirm(object, version).into_iter().collect()
            }
            Event::Delete(object) => {
                inner.seen = inner.seen.max(version(&object).unwrap_or(0));
                let old = inner.objects.remove(&object.name_any()).map(|entry| entry.object);
                old.map(|old| Change { old: Some(old), new: None }).into_iter().collect()
            }
            Event::Init => {
                inner.lists += 1;
                inner.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let name = object.name_any();
                if let Some(listing) = inner.listing.as_mut() {
                    listing.insert(name, Arc::new(slim(object)));
                }
                Vec::new()
            }
            Event::InitDone => {
                let listed = inner.listing.take().unwrap_or_default();
                let lists = inner.lists;
                let mut changes = Vec::new();
                let gone: Vec<String> = inner
                    .objects
                    .iter()
                    .filter(|(name, entry)| !listed.contains_key(*name) && entry.noted != Some(lists))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in gone {
                    if let Some(entry) = inner.objects.remove(&name) {
                        changes.push(Change { old: Some(entry.object), new: None });
                    }
                }
                for object in listed.into_values() {
                    let version = version(object.as_ref()).unwrap_or(0);
                    inner.seen = inner.seen.max(version);
                    changes.extend(inner.confirm_shared(object, version));
                }
                changes
            }
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Inner<K> {
    fn confirm(&mut self, object: K, version: u64) -> Option<Change<K>> {
        self.confirm_shared(Arc::new(slim(object)), version)
    }

    fn confirm_shared(&mut self, object: Arc<K>, version: u64) -> Option<Change<K>> {
        let name = object.name_any();
        let known = self.objects.get(&name).map(|entry| entry.object.clone());
        match known.as_deref().and_then(crate::domain::instance::version) {
            // Our own write told us before the watch did. Those who wait for a change were told then.
            Some(known) if known > version => return None,
            Some(known) if known == version => {
                if let Some(entry) = self.objects.get_mut(&name) {
                    entry.noted = None;
                }
                return None;
            }
            _ => {}
        }
        self.objects.insert(name, Entry { object: object.clone(), noted: None });
        Some(Change { old: known, new: Some(object) })
    }
}

/// Field ownership makes up a quarter of an object, and nothing here reads it.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Follows a kind for ever; `on_change` is called for each change after the cache has it. A broken watch is begun again after a pause that
/// grows.
pub(crate) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    cache: Arc<Cache<K>>,
    mut on_change: impl FnMut(Change<K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(&cache, event, &mut on_change),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "the watch broke; it is taken up again")
            }
        }
    }
}

/// The cache has its first list only after everybody was told of it, so that whoever waited for it sees the effect of `on_change`.
fn take<K: Resource<DynamicType = ()> + Clone>(
    cache: &Cache<K>,
    event: Event<K>,
    on_change: &mut impl FnMut(Change<K>),
) {
    let listed = matches!(event, Event::InitDone);
    cache.apply(event).into_iter().for_each(on_change);
    if listed {
        cache.synced.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    fn names(cache: &Cache<Pod>) -> Vec<(String, u64)> {
        let mut names: Vec<_> =
            cache.all().iter().map(|pod| (pod.name_any(), version(pod.as_ref()).unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_list_is_there_when_all_of_it_was_told() {
        let cache = Cache::<Pod>::default();
        let mut told = 0;
        for event in [Event::Init, Event::InitApply(pod("a", 3)), Event::InitApply(pod("b", 4)), Event::InitDone] {
            take(&cache, event, &mut |_| {
                assert!(!*cache.synced.borrow(), "the list counts as known before all of it was told");
                told += 1;
            });
        }
        assert_eq!((told, *cache.synced.borrow()), (2, true));
    }

    #[test]
    fn own_writes_are_known_before_the_watch_tells_and_only_once() {
        let cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("a", 3)));
        assert_eq!(cache.apply(Event::InitDone).len(), 1);
        assert!(cache.note(pod("b", 5)).is_some());
        assert_eq!(names(&cache), [("a".into(), 3), ("b".into(), 5)]);
        assert!(cache.apply(Event::Apply(pod("b", 5))).is_empty(), "told when it was noted");
        assert_eq!(cache.apply(Event::Apply(pod("b", 6))).len(), 1);
    }

    #[test]
    fn the_answer_to_a_write_that_comes_after_the_deletion_raises_nobody_from_the_dead() {
        let cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitDone);
        cache.apply(Event::Apply(pod("a", 5)));
        cache.apply(Event::Delete(pod("a", 7)));
        assert!(cache.note(pod("a", 6)).is_none());
        assert!(names(&cache).is_empty());
    }

    #[test]
    fn a_new_list_removes_what_is_not_in_it_but_not_what_was_written_meanwhile() {
        let cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("old", 1)));
        cache.apply(Event::InitDone);
        cache.note(pod("forgotten", 2));
        cache.apply(Event::Init);
        cache.note(pod("fresh", 9));
        cache.apply(Event::InitApply(pod("listed", 8)));
        let changes = cache.apply(Event::InitDone);
        assert_eq!(names(&cache), [("fresh".into(), 9), ("listed".into(), 8)]);
        assert_eq!(changes.iter().filter(|change| change.new.is_none()).count(), 2);
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitDone);
        cache.note(pod("a", 9));
        assert!(cache.apply(Event::Apply(pod("a", 8))).is_empty());
        assert_eq!(names(&cache), [("a".into(), 9)]);
    }
}
