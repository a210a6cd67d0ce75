//! CRDs: accepting their names, serving them, and removing them.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::{DEFINITIONS, edit, internal};
use crate::handlers;
use crate::meta;
use crate::registry::custom;
use crate::registry::custom_definition::CLEANUP;
use crate::schema;
use crate::server::Api;
use crate::store::object::{Address, CollectionName, Draft, Key, Object};

/// Which CRDs are served, and in which state of theirs.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    served: HashMap<Key, (Value, bool)>,
}

impl Definitions {
    /// Brings what is served and the CRD's status in line with its spec.
    pub(crate) async fn establish(&mut self, api: &Arc<Api>, key: &Key) {
        let Some(object) = api.objects.get(DEFINITIONS, key) else { return };
        let crd = object.value();
        let conflicts = name_conflicts(api, &crd);
        let mut accepted = crd["status"]["acceptedNames"].clone();
        if conflicts.is_empty() {
            accepted = crd["spec"]["names"].clone();
            self.serve(api, key, &crd);
        }
        let deleting = object.facts.deleting;
        let now = api.clock.now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let address = Address { collection: DEFINITIONS.into(), key: key.clone() };
        edit(api, &address, |crd| {
            let before = crd["status"].clone();
            crd["status"]["acceptedNames"] = accepted.clone();
            let conditions = &mut crd["status"]["conditions"];
            match conflicts.first() {
                None => {
                    condition(conditions, &now, "NamesAccepted", true, "NoConflicts", "no conflicts found");
                    condition(
                        conditions,
                        &now,
                        "Established",
                        true,
                        "InitialNamesAccepted",
                        "the initial names have been accepted",
                    );
                }
                Some((reason, message)) => {
                    condition(conditions, &now, "NamesAccepted", false, reason, message);
                    if !is_true(conditions, "Established") {
                        condition(conditions, &now, "Established", false, "NotAccepted", "not all names are accepted");
                    }
                }
            }
            if deleting {
                condition(
                    conditions,
                    &now,
                    "Terminating",
                    true,
                    "InstanceDeletionInProgress",
                    "CustomResource deletion is in progress",
                );
            }
            // Names are freed only when the objects are gone.
            let mut finalizers: Vec<String> = meta::finalizers(crd).into_iter().map(str::to_owned).collect();
            let unheld = !deleting && !finalizers.iter().any(|name| name == CLEANUP);
            if unheld {
                finalizers.push(CLEANUP.to_owned());
                meta::set(crd, "finalizers", json!(finalizers));
            }
            unheld || before != crd["status"]
        })
        .await;
        if deleting {
            self.take_down(api, &address, &custom::collection(&crd)).await;
        }
    }

    /// Serves the CRD as it is now. Does nothing if it is served like that already, because a new table ends watches.
    pub(crate) fn serve(&mut self, api: &Arc<Api>, key: &Key, crd: &Value) {
        let state = (crd["spec"].clone(), meta::is_deleting(crd));
        if self.served.get(key) == Some(&state) {
            return;
        }
        match custom::resources(crd) {
            Ok(resources) => {
                let collection: CollectionName = custom::collection(crd).into();
                api.registry.replace(&collection, resources);
                refresh(api, &collection);
                self.served.insert(key.clone(), state);
            }
            Err(causes) => {
                let problem = causes.first().map(|cause| format!("{}: {}", cause.field, cause.message));
                tracing::error!(crd = %key.name, problem, "a stored CRD cannot be served");
            }
        }
    }

    /// The CRD is gone.
    pub(crate) fn removed(&mut self, api: &Arc<Api>, object: &Object) {
        self.served.remove(&object.key);
        api.registry.replace(&custom::collection(&object.value()), Vec::new());
    }

    /// An object is gone; it may have been the last of a CRD that is being deleted.
    pub(crate) async fn instance_removed(&mut self, api: &Arc<Api>, collection: &CollectionName) {
        // A collection is named as its CRD is.
        let key = Key::new("", collection);
        if self.served.get(&key).is_some_and(|(_, deleting)| *deleting) {
            let address = Address { collection: DEFINITIONS.into(), key };
            self.take_down(api, &address, collection).await;
        }
    }

    /// Deletes the objects of a CRD under deletion; the CRD goes after the last.
    async fn take_down(&self, api: &Arc<Api>, definition: &Address, collection: &str) {
        let Some(resource) = api.registry.table().storage(collection).cloned() else { return };
        let objects: Vec<Arc<Object>> = {
            let state = api.objects.read();
            state.collection(collection).map(|found| found.objects.values().cloned().collect()).unwrap_or_default()
        };
        for object in objects {
            if !object.facts.deleting {
                let call = internal(api, &resource, &object.key.namespace, &object.key.name);
                handlers::remove_quietly(&call, object, None).await;
            }
        }
        let empty = api.objects.read().collection(collection).is_none_or(|found| found.objects.is_empty());
        if empty {
            edit(api, definition, |crd| {
                let kept: Vec<String> =
                    meta::finalizers(crd).into_iter().filter(|name| *name != CLEANUP).map(str::to_owned).collect();
                let changed = kept.len() != meta::finalizers(crd).len();
                if kept.is_empty() {
                    meta::remove(crd, "finalizers");
                } else {
                    meta::set(crd, "finalizers", json!(kept));
                }
                changed
            })
            .await;
        }
    }
}

fn is_true(conditions: &Value, kind: &str) -> bool {
    conditions.as_array().into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
}

fn condition(conditions: &mut Value, now: &str, kind: &str, holds: bool, reason: &str, message: &str) {
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let status = if holds { "True" } else { "False" };
    match list.iter_mut().find(|one| one["type"] == kind) {
        Some(one) => {
            if one["status"] != status {
                one["lastTransitionTime"] = json!(now);
            }
            one["status"] = json!(status);
            one["reason"] = json!(reason);
            one["message"] = json!(message);
        }
        None => list.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
        })),
    }
}

/// Names of this CRD that another of its group has taken.
fn name_conflicts(api: &Api, crd: &Value) -> Vec<(&'static str, String)> {
    let group = &crd["spec"]["group"];
    let own = meta::text(crd, "name");
    let others: Vec<Value> = {
        let state = api.objects.read();
        let all = state.collection(DEFINITIONS).into_iter().flat_map(|collection| collection.objects.values());
        all.filter(|object| &*object.key.name != own).map(|object| object.value()).collect()
    };
    let names = &crd["spec"]["names"];
    let mut conflicts = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for other in others.iter().filter(|other| other["spec"]["group"] == *group) {
        let taken = &other["status"]["acceptedNames"];
        let words: Vec<String> = ["plural", "singular"]
            .iter()
            .map(|name| text(&taken[*name]))
            .chain(taken["shortNames"].as_array().into_iter().flatten().map(text))
            .collect();
        let kinds = [text(&taken["kind"]), text(&taken["listKind"])];
        let mut claim = |word: String, all: &[String], reason: &'static str| {
            if !word.is_empty() && all.contains(&word) {
                conflicts.push((reason, format!("{word:?} is already in use")));
            }
        };
        claim(text(&names["plural"]), &words, "PluralConflict");
        claim(text(&names["singular"]), &words, "SingularConflict");
        for short in names["shortNames"].as_array().into_iter().flatten() {
            claim(text(short), &words, "ShortNamesConflict");
        }
        claim(text(&names["kind"]), &kinds, "KindConflict");
        claim(text(&names["listKind"]), &kinds, "ListKindConflict");
    }
    conflicts
}

/// Rebuilds the cached objects of a kind under its current schema, so that a new default shows in reads without a write.
pub(crate) fn refresh(api: &Api, collection: &CollectionName) {
    let Some(resource) = api.registry.table().storage(collection).cloned() else { return };
    let mut state = api.objects.write_state();
    let objects: Vec<Arc<Object>> =
        state.collection(collection).map(|found| found.objects.values().cloned().collect()).unwrap_or_default();
    for object in objects {
        let mut value = object.value();
        schema::prune(&mut value, &resource.schema, "", &mut Vec::new());
        schema::apply_defaults(&mut value, &resource.schema);
        value["apiVersion"] = json!(resource.api_version());
        let fresh = Draft::new(&value, &resource.fields).commit(object.key.clone(), object.revision);
        state.load(collection, fresh);
    }
}
