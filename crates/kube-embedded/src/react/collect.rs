//! Garbage collection by owner references.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{edit, internal};
use crate::handlers::{self, FOREGROUND, ORPHAN, Propagation};
use crate::meta;
use crate::server::Api;
use crate::store::object::{Address, Object};
use crate::store::state::{Change, Event};

/// Reacts to a change of the object at `address`.
pub(super) async fn after(api: &Arc<Api>, address: &Address, event: &Event) {
    match event.change {
        Change::Deleted => {
            let dependents = api.objects.read().dependents(&event.object.facts.uid);
            for dependent in dependents {
                look(api, &dependent).await;
            }
            // An owner that waits for its dependents may have waited for this one.
            for owner in &event.object.facts.owners {
                let owner = api.objects.read().address_of_uid(owner).cloned();
                if let Some(owner) = owner {
                    let deleting = api.objects.get(&owner.collection, &owner.key).is_some_and(|o| o.facts.deleting);
                    if deleting {
                        look(api, &owner).await;
                    }
                }
            }
        }
        Change::Added | Change::Modified => {
            if !event.object.facts.owners.is_empty() || event.object.facts.deleting {
                look(api, address).await;
            }
        }
    }
}

/// Does what is due for one object: collects it, or moves its own deletion on.
pub(super) async fn look(api: &Arc<Api>, address: &Address) {
    let Some(object) = api.objects.get(&address.collection, &address.key) else { return };
    if object.facts.deleting {
        let value = object.value();
        let finalizers = meta::finalizers(&value);
        if finalizers.contains(&ORPHAN) {
            orphan(api, address, &object).await;
        } else if finalizers.contains(&FOREGROUND) {
            foreground(api, address, &object).await;
        }
        return;
    }
    if !object.facts.owners.is_empty() {
        dependent(api, address, object).await;
    }
}

enum Owner {
    Solid,
    /// Deleted in the foreground: it waits for its dependents.
    Waiting,
    Missing,
}

fn owner(api: &Api, reference: &Value, namespace: &str) -> Owner {
    let uid = reference["uid"].as_str().unwrap_or_default();
    let found = {
        let state = api.objects.read();
        state.address_of_uid(uid).and_then(|address| state.get(&address.collection, &address.key)).cloned()
    };
    match found {
        // An owner in another namespace is no owner.
        Some(owner) if owner.key.namespace.is_empty() || *owner.key.namespace == *namespace => {
            if owner.facts.deleting && meta::finalizers(&owner.value()).contains(&FOREGROUND) {
                Owner::Waiting
            } else {
                Owner::Solid
            }
        }
        _ => Owner::Missing,
    }
}

/// Deletes a dependent whose owners are all gone, or removes its references to missing owners.
async fn dependent(api: &Arc<Api>, address: &Address, object: Arc<Object>) {
    let value = object.value();
    let references = value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let (mut solid, mut waiting, mut dangling) = (0_usize, 0_usize, Vec::new());
    for reference in &references {
        match owner(api, reference, &address.key.namespace) {
            Owner::Solid => solid += 1,
            Owner::Waiting => {
                waiting += 1;
                dangling.push(reference["uid"].clone());
            }
            Owner::Missing => dangling.push(reference["uid"].clone()),
        }
    }
    if dangling.is_empty() {
        return;
    }
    if solid > 0 {
        edit(api, address, |object| drop_references(object, &dangling)).await;
        return;
    }
    let Some(resource) = api.registry.table().storage(&address.collection).cloned() else { return };
    let call = internal(api, &resource, &address.key.namespace, &address.key.name);
    let finalizers = meta::finalizers(&value);
    let has_dependents = !api.objects.read().dependents(&object.facts.uid).is_empty();
    let propagation = if finalizers.contains(&ORPHAN) {
        Propagation::Orphan
    } else if waiting > 0 && has_dependents || finalizers.contains(&FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    handlers::remove_quietly(&call, object, Some(propagation)).await;
}

fn drop_references(object: &mut Value, uids: &[Value]) -> bool {
    let Some(references) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = references.len();
    references.retain(|reference| !uids.contains(&reference["uid"]));
    let (after, empty) = (references.len(), references.is_empty());
    if empty {
        meta::remove(object, "ownerReferences");
    }
    after != before
}

fn drop_finalizer(object: &mut Value, name: &str) -> bool {
    let kept: Vec<String> =
        meta::finalizers(object).into_iter().filter(|finalizer| *finalizer != name).map(str::to_owned).collect();
    let changed = kept.len() != meta::finalizers(object).len();
    if kept.is_empty() {
        meta::remove(object, "finalizers");
    } else {
        meta::set(object, "finalizers", json!(kept));
    }
    changed
}

/// Removes the references to the owner from its dependents, then lets it go.
async fn orphan(api: &Arc<Api>, address: &Address, object: &Object) {
    let uid = json!(object.facts.uid);
    let dependents = api.objects.read().dependents(&object.facts.uid);
    for dependent in dependents {
        edit(api, &dependent, |object| drop_references(object, std::slice::from_ref(&uid))).await;
    }
    edit(api, address, |object| drop_finalizer(object, ORPHAN)).await;
}

/// Deletes the dependents; the owner goes when none is left that blocks it.
async fn foreground(api: &Arc<Api>, address: &Address, object: &Object) {
    let dependents = api.objects.read().dependents(&object.facts.uid);
    let mut blocked = false;
    for address in dependents {
        let Some(found) = api.objects.get(&address.collection, &address.key) else { continue };
        if !found.facts.deleting {
            dependent(api, &address, found).await;
        }
        let Some(left) = api.objects.get(&address.collection, &address.key) else { continue };
        let value = left.value();
        blocked |= value["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|reference| {
            reference["uid"].as_str() == Some(&*object.facts.uid)
                && reference["blockOwnerDeletion"].as_bool() == Some(true)
        });
    }
    if !blocked {
        edit(api, address, |object| drop_finalizer(object, FOREGROUND)).await;
    }
}
