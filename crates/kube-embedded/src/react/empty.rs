//! Deleted namespaces: what is in them goes first.

use std::sync::Arc;

use crate::handlers::{self};
use crate::react::{NAMESPACES, edit, internal};
use crate::server::Api;
use crate::store::object::{Address, Key, Object};

fn is_terminating(api: &Api, namespace: &str) -> bool {
    api.objects.get(NAMESPACES, &Key::new("", namespace)).is_some_and(|object| object.facts.deleting)
}

fn contents(api: &Api, namespace: &str) -> Vec<(Arc<str>, Arc<Object>)> {
    let state = api.objects.read();
    let mut contents = Vec::new();
    for name in state.collection_names() {
        if let Some(collection) = state.collection(&name) {
            contents.extend(collection.range(Some(namespace), None).map(|object| (name.clone(), object.clone())));
        }
    }
    contents
}

/// Deletes what is in the namespace, and the namespace if nothing is.
pub(super) async fn namespace(api: &Arc<Api>, namespace: &str) {
    if !is_terminating(api, namespace) {
        return;
    }
    for (collection, object) in contents(api, namespace) {
        if object.facts.deleting {
            continue;
        }
        let Some(resource) = api.registry.table().storage(&collection).cloned() else { continue };
        let call = internal(api, &resource, namespace, &object.key.name);
        handlers::remove_quietly(&call, object, None).await;
    }
    check(api, namespace).await;
}

/// Lets the namespace go if nothing is left in it.
pub(super) async fn check(api: &Arc<Api>, namespace: &str) {
    if !is_terminating(api, namespace) || !contents(api, namespace).is_empty() {
        return;
    }
    let address = Address { collection: NAMESPACES.into(), key: Key::new("", namespace) };
    edit(api, &address, |object| match object["spec"].as_object_mut() {
        Some(spec) => spec.remove("finalizers").is_some(),
        None => false,
    })
    .await;
}
