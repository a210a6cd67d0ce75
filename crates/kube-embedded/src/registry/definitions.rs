//! The builtin kinds: what they are called, and what may be selected of them.

use std::sync::Arc;

use super::{Builtin, Resource};
use crate::meta::NameRule;
use crate::output::cells;
use crate::schema::builtin;
use crate::store::object::FieldPath;

struct Definition {
    kind: Builtin,
    group: &'static str,
    plural: &'static str,
    name: &'static str,
    schema: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    generation: bool,
}

const CORE: &str = "io.k8s.api.core.v1.";

/// What most of them have in common; kind, names and schema differ.
const NAMESPACED: Definition = Definition {
    kind: Builtin::ConfigMap,
    group: "",
    plural: "",
    name: "",
    schema: "",
    short: &[],
    categories: &[],
    namespaced: true,
    status: false,
    generation: false,
};

const DEFINITIONS: [Definition; 10] = [
    Definition {
        kind: Builtin::Namespace,
        plural: "namespaces",
        name: "Namespace",
        schema: "io.k8s.api.core.v1.Namespace",
        short: &["ns"],
        namespaced: false,
        status: true,
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::Pod,
        plural: "pods",
        name: "Pod",
        schema: "io.k8s.api.core.v1.Pod",
        short: &["po"],
        categories: &["all"],
        status: true,
        generation: true,
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::Node,
        plural: "nodes",
        name: "Node",
        schema: "io.k8s.api.core.v1.Node",
        short: &["no"],
        namespaced: false,
        status: true,
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::Event,
        plural: "events",
        name: "Event",
        schema: "io.k8s.api.core.v1.Event",
        short: &["ev"],
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::NewEvent,
        group: "events.k8s.io",
        plural: "events",
        name: "Event",
        schema: "io.k8s.api.events.v1.Event",
        short: &["ev"],
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::Secret,
        plural: "secrets",
        name: "Secret",
        schema: "io.k8s.api.core.v1.Secret",
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::ConfigMap,
        plural: "configmaps",
        name: "ConfigMap",
        schema: "io.k8s.api.core.v1.ConfigMap",
        short: &["cm"],
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::ServiceAccount,
        plural: "serviceaccounts",
        name: "ServiceAccount",
        schema: "io.k8s.api.core.v1.ServiceAccount",
        short: &["sa"],
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::Lease,
        group: "coordination.k8s.io",
        plural: "leases",
        name: "Lease",
        schema: "io.k8s.api.coordination.v1.Lease",
        ..NAMESPACED
    },
    Definition {
        kind: Builtin::CustomResourceDefinition,
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        name: "CustomResourceDefinition",
        schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        generation: true,
    },
];

pub(super) fn resources() -> Vec<Resource> {
    let core: Vec<&str> =
        DEFINITIONS.iter().filter(|definition| definition.schema.starts_with(CORE)).map(|d| d.schema).collect();
    let mut core = builtin::schemas("api/v1", &core).into_iter();
    let mut resources = Vec::with_capacity(DEFINITIONS.len());
    for definition in &DEFINITIONS {
        let schema = if definition.group.is_empty() {
            core.next()
        } else {
            builtin::schemas(&format!("apis/{}/v1", definition.group), &[definition.schema]).pop()
        };
        let collection = if definition.group.is_empty() || definition.kind == Builtin::NewEvent {
            definition.plural.to_owned()
        } else {
            format!("{}.{}", definition.plural, definition.group)
        };
        resources.push(Resource {
            group: definition.group.into(),
            version: "v1".into(),
            plural: definition.plural.into(),
            singular: definition.name.to_ascii_lowercase().into(),
            kind: definition.name.into(),
            list_kind: format!("{}List", definition.name).into(),
            short_names: definition.short.iter().map(|name| (*name).to_owned()).collect(),
            categories: definition.categories.iter().map(|name| (*name).to_owned()).collect(),
            namespaced: definition.namespaced,
            collection: collection.into(),
            builtin: Some(definition.kind),
            storage: definition.kind != Builtin::NewEvent,
            schema: schema.unwrap_or_default(),
            status: definition.status,
            scale: None,
            columns: cells::columns(definition.kind),
            fields: fields(definition.kind),
            generation: definition.generation,
            names: if definition.kind == Builtin::Namespace { NameRule::Label } else { NameRule::Subdomain },
            terminating: false,
            document: None,
            deprecation: None,
        });
    }
    resources
}

fn fields(kind: Builtin) -> Arc<[FieldPath]> {
    let plain = |labels: &[&str]| -> Arc<[FieldPath]> { labels.iter().map(|label| FieldPath::new(label)).collect() };
    match kind {
        Builtin::Namespace => plain(&["status.phase"]),
        Builtin::Pod => {
            let mut fields: Vec<FieldPath> = [
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ]
            .iter()
            .map(|label| FieldPath::new(label))
            .collect();
            fields.push(FieldPath::new("spec.hostNetwork").missing("false"));
            fields.into()
        }
        Builtin::Node => [FieldPath::new("spec.unschedulable").missing("false")].into(),
        Builtin::Event | Builtin::NewEvent => {
            let mut fields: Vec<FieldPath> = [
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "type",
            ]
            .iter()
            .map(|label| FieldPath::new(label))
            .collect();
            fields.push(FieldPath::at("source", "source.component"));
            fields.into()
        }
        Builtin::Secret => plain(&["type"]),
        Builtin::ConfigMap | Builtin::ServiceAccount | Builtin::Lease | Builtin::CustomResourceDefinition => {
            Arc::new([])
        }
    }
}
