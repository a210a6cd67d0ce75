//! What the server does by itself after a commit: CRDs become served, namespaces are emptied, dependents collected,
//! old events forgotten. The parts of kube-controller-manager that clients count on.

mod collect;
pub(crate) mod define;
mod empty;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::handlers::Call;
use crate::handlers::write::{self, Attempt};
use crate::output::negotiate::{Form, Shape};
use crate::registry::Resource;
use crate::request::{Query, Target};
use crate::server::Api;
use crate::store::object::{Address, CollectionName};
use crate::store::state::{Change, Event};
use crate::store::stopped;

pub(crate) const NAMESPACES: &str = "namespaces";
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const EVENTS: &str = "events";

/// How long events are kept.
const EVENTS_KEPT: TimeDelta = TimeDelta::hours(1);
/// How often everything is looked at again: what failed on a lost database is repaired then.
const SWEEP: Duration = Duration::from_secs(30);

/// A call of the server to itself.
pub(crate) fn internal(api: &Arc<Api>, resource: &Arc<Resource>, namespace: &str, name: &str) -> Call {
    Call {
        api: api.clone(),
        target: Target {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            namespace: namespace.to_owned(),
            plural: resource.plural.to_string(),
            name: name.to_owned(),
            subresource: String::new(),
            watch: false,
        },
        query: Query::parse(Some("fieldManager=berth-apiserver")),
        headers: HeaderMap::new(),
        resource: resource.clone(),
        form: Form { shape: Shape::Plain, yaml: false, pretty: false },
        now: api.clock.now(),
        warnings: Vec::new(),
    }
}

/// Changes an object as the server, without owners' records or checks. `change` returns false for nothing to do.
pub(crate) async fn edit(api: &Arc<Api>, address: &Address, mut change: impl FnMut(&mut Value) -> bool) {
    let Some(resource) = api.registry.table().storage(&address.collection).cloned() else { return };
    let call = internal(api, &resource, &address.key.namespace, &address.key.name);
    loop {
        let Some(current) = api.objects.get(&address.collection, &address.key) else { return };
        let old = current.value();
        let mut new = old.clone();
        if !change(&mut new) {
            return;
        }
        match write::commit_update(&call, &current, &old, new).await {
            Ok(Attempt::Done(_)) => return,
            Ok(Attempt::Changed) => {}
            Err(error) => {
                tracing::warn!(message = error.message, collection = %address.collection, name = %address.key.name, "cannot change an object");
                return;
            }
        }
    }
}

pub(crate) async fn run(
    api: Arc<Api>,
    mut commits: mpsc::UnboundedReceiver<(CollectionName, Arc<Event>)>,
    mut stop: watch::Receiver<bool>,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut definitions = define::Definitions::default();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            commit = commits.recv() => {
                let Some((collection, event)) = commit else { return };
                react(&api, &mut definitions, &collection, &event).await;
            }
            _ = sweep.tick() => everything(&api, &mut definitions).await,
        }
    }
}

async fn react(api: &Arc<Api>, definitions: &mut define::Definitions, collection: &CollectionName, event: &Event) {
    match &**collection {
        DEFINITIONS => match event.change {
            Change::Deleted => definitions.removed(api, &event.object),
            Change::Added | Change::Modified => definitions.establish(api, &event.object.key).await,
        },
        NAMESPACES if event.object.facts.deleting && event.change != Change::Deleted => {
            empty::namespace(api, &event.object.key.name).await;
        }
        _ => {}
    }
    if event.change == Change::Deleted {
        let namespace = &event.object.key.namespace;
        if !namespace.is_empty() {
            empty::check(api, namespace).await;
        }
        definitions.instance_removed(api, collection).await;
    }
    let address = Address { collection: collection.clone(), key: event.object.key.clone() };
    collect::after(api, &address, event).await;
}

/// Looks at all there is, for what a crash or a lost database left half done.
async fn everything(api: &Arc<Api>, definitions: &mut define::Definitions) {
    let addresses = |collection: &str| -> Vec<Address> {
        let state = api.objects.read();
        state
            .collection(collection)
            .map(|found| {
                let name: CollectionName = collection.into();
                found.objects.keys().map(|key| Address { collection: name.clone(), key: key.clone() }).collect()
            })
            .unwrap_or_default()
    };
    for address in addresses(DEFINITIONS) {
        definitions.establish(api, &address.key).await;
    }
    let waiting: HashSet<Address> = {
        let state = api.objects.read();
        let mut waiting = HashSet::new();
        for name in state.collection_names() {
            for object in state.collection(&name).into_iter().flat_map(|collection| collection.objects.values()) {
                if object.facts.deleting || !object.facts.owners.is_empty() {
                    waiting.insert(Address { collection: name.clone(), key: object.key.clone() });
                }
            }
        }
        waiting
    };
    for address in waiting {
        if &*address.collection == NAMESPACES {
            empty::namespace(api, &address.key.name).await;
        }
        collect::look(api, &address).await;
    }
    forget_events(api, api.clock.now()).await;
}

async fn forget_events(api: &Arc<Api>, now: DateTime<Utc>) {
    let old: Vec<_> = {
        let state = api.objects.read();
        let events = state.collection(EVENTS).into_iter().flat_map(|collection| collection.objects.values());
        events.cloned().collect()
    };
    let Some(resource) = api.registry.table().storage(EVENTS).cloned() else { return };
    for object in old {
        let event = object.value();
        let last = event["series"]["lastObservedTime"]
            .as_str()
            .or(event["lastTimestamp"].as_str())
            .or(event["metadata"]["creationTimestamp"].as_str());
        let expired = last
            .and_then(|at| DateTime::parse_from_rfc3339(at).ok())
            .is_some_and(|at| now - at.with_timezone(&Utc) > EVENTS_KEPT);
        if expired {
            let call = internal(api, &resource, &object.key.namespace, &object.key.name);
            crate::handlers::remove_quietly(&call, object, None).await;
        }
    }
}
