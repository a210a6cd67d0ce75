//! Which resources are served, and how each behaves.

pub(crate) mod builtin;
pub(crate) mod custom;
pub(crate) mod custom_definition;
mod definitions;
pub(crate) mod events;
pub(crate) mod pods;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use tokio::sync::watch;

use crate::error::Subject;
use crate::meta::NameRule;
use crate::output::table::Column;
use crate::schema::Schema;
use crate::store::object::{CollectionName, FieldPath};

/// The builtin kinds, where they differ from each other in behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Builtin {
    Namespace,
    Pod,
    Node,
    /// Core `v1` events, the stored form.
    Event,
    /// The same events as `events.k8s.io/v1` shows them.
    NewEvent,
    Secret,
    ConfigMap,
    ServiceAccount,
    Lease,
    CustomResourceDefinition,
}

/// Where a custom resource keeps what `/scale` shows, as dotted paths without the leading dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: Option<String>,
}

/// One served version of one resource.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) plural: Box<str>,
    pub(crate) singular: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) list_kind: Box<str>,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) collection: CollectionName,
    /// `None` for custom resources.
    pub(crate) builtin: Option<Builtin>,
    /// Whether objects are stored in this version.
    pub(crate) storage: bool,
    pub(crate) schema: Arc<Schema>,
    pub(crate) status: bool,
    pub(crate) scale: Option<Scale>,
    pub(crate) columns: Vec<Column>,
    pub(crate) fields: Arc<[FieldPath]>,
    pub(crate) generation: bool,
    pub(crate) names: NameRule,
    /// The CRD is being deleted: nothing new may be made.
    pub(crate) terminating: bool,
    /// The OpenAPI schema as the CRD gives it, for the published document.
    pub(crate) document: Option<Arc<Value>>,
    /// Warned on each request, for deprecated versions.
    pub(crate) deprecation: Option<String>,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { group: &self.group, plural: &self.plural, kind: &self.kind }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.builtin.is_none()
    }

    /// PUT of a missing object creates it.
    pub(crate) fn creates_on_update(&self) -> bool {
        matches!(self.builtin, Some(Builtin::Lease | Builtin::Event | Builtin::NewEvent))
    }

    /// PUT needs no resource version.
    pub(crate) fn unconditional_update(&self) -> bool {
        !matches!(self.builtin, None | Some(Builtin::CustomResourceDefinition | Builtin::Lease))
    }

    /// An immediate delete answers the object rather than a Status.
    pub(crate) fn delete_answers_object(&self) -> bool {
        matches!(self.builtin, Some(Builtin::Pod | Builtin::Namespace | Builtin::ServiceAccount))
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    }
}

/// Group, version, plural.
type Place = (Box<str>, Box<str>, Box<str>);

/// All resources. A value that is replaced whole when a CRD changes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By group, then version in order of preference, then plural.
    resources: BTreeMap<Place, Arc<Resource>>,
    /// Goes up with each change; discovery's ETag.
    pub(crate) generation: u64,
}

impl Table {
    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.into(), version.into(), plural.into()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The version that objects of a collection are stored in.
    pub(crate) fn storage(&self, collection: &str) -> Option<&Arc<Resource>> {
        self.iter().find(|resource| resource.storage && &*resource.collection == collection)
    }

    /// The groups, core first, then builtin ones, then custom ones by name.
    pub(crate) fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<(bool, &str)> = Vec::new();
        for resource in self.iter() {
            if !groups.iter().any(|(_, group)| *group == &*resource.group) {
                groups.push((resource.is_custom(), &resource.group));
            }
        }
        groups.sort_unstable();
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// The versions of a group, preferred first.
    pub(crate) fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for resource in self.iter().filter(|resource| &*resource.group == group) {
            if !versions.contains(&&*resource.version) {
                versions.push(&resource.version);
            }
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        versions
    }

    pub(crate) fn in_version(&self, group: &str, version: &str) -> Vec<&Arc<Resource>> {
        self.iter().filter(|resource| &*resource.group == group && &*resource.version == version).collect()
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, higher first, anything else last.
pub(crate) fn version_priority(version: &str) -> (u8, u64, u64) {
    let parse = || -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            Some((3, major, 0))
        } else if let Some(minor) = tail.strip_prefix("beta") {
            Some((2, major, minor.parse().ok()?))
        } else if let Some(minor) = tail.strip_prefix("alpha") {
            Some((1, major, minor.parse().ok()?))
        } else {
            None
        }
    };
    parse().unwrap_or((0, 0, 0))
}

/// The current table, shared.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: RwLock<Arc<Table>>,
    /// Goes up with each change, for watches that must end when their kind changes.
    changed: watch::Sender<u64>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let mut table = Table::default();
        for resource in definitions::resources() {
            let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            table.resources.insert(key, Arc::new(resource));
        }
        Self { table: RwLock::new(Arc::new(table)), changed: watch::Sender::new(0) }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Replaces every version of the collection by `resources`; none removes it.
    pub(crate) fn replace(&self, collection: &str, resources: Vec<Resource>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Table { resources: table.resources.clone(), generation: table.generation + 1 };
        next.resources.retain(|_, resource| resource.builtin.is_some() || &*resource.collection != collection);
        for resource in resources {
            let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            next.resources.entry(key).or_insert_with(|| Arc::new(resource));
        }
        let generation = next.generation;
        *table = Arc::new(next);
        self.changed.send_replace(generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha1", "v1beta2", "foo", "v2", "v11", "v1", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
