//! The schemas of the builtin kinds, out of Kubernetes' own OpenAPI documents (`openapi/trim.py` makes them).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::{Schema, compile_document};

/// Path of the document below `/openapi/v3`, and its text.
pub(crate) const DOCUMENTS: [(&str, &str); 6] = [
    ("api/v1", include_str!("../../openapi/api__v1.json")),
    ("apis/apiextensions.k8s.io/v1", include_str!("../../openapi/apis__apiextensions.k8s.io__v1.json")),
    ("apis/authentication.k8s.io/v1", include_str!("../../openapi/apis__authentication.k8s.io__v1.json")),
    ("apis/authorization.k8s.io/v1", include_str!("../../openapi/apis__authorization.k8s.io__v1.json")),
    ("apis/coordination.k8s.io/v1", include_str!("../../openapi/apis__coordination.k8s.io__v1.json")),
    ("apis/events.k8s.io/v1", include_str!("../../openapi/apis__events.k8s.io__v1.json")),
];

/// Compiled once in a process, then kept: the documents themselves are parsed only for that.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Schema>>>> = LazyLock::new(Mutex::default);

/// The schema called `name` in the document at `path`. Open if there is none.
pub(crate) fn schemas(path: &str, names: &[&str]) -> Vec<Arc<Schema>> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = |name: &str| format!("{path}#{name}");
    if names.iter().any(|name| !compiled.contains_key(&key(name))) {
        let text = DOCUMENTS.iter().find(|(document, _)| *document == path).map_or("{}", |(_, text)| *text);
        let document: Value = serde_json::from_str(text).unwrap_or_default();
        let none = Map::new();
        let definitions = document["components"]["schemas"].as_object().unwrap_or(&none);
        for name in names {
            compiled.insert(key(name), Arc::new(compile_document(definitions, name)));
        }
    }
    names.iter().filter_map(|name| compiled.get(&key(name)).cloned()).collect()
}

/// `ObjectMeta`, which every kind has.
pub(crate) fn object_meta() -> Arc<Schema> {
    static META: LazyLock<Arc<Schema>> = LazyLock::new(|| {
        schemas("api/v1", &["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]).pop().unwrap_or_default()
    });
    META.clone()
}

/// The definition of `ObjectMeta` and what it names, for the documents of custom resources.
pub(crate) fn meta_definitions() -> Map<String, Value> {
    let document: Value = serde_json::from_str(DOCUMENTS[0].1).unwrap_or_default();
    let mut wanted = Map::new();
    if let Some(definitions) = document["components"]["schemas"].as_object() {
        for (name, definition) in definitions {
            if name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1.") {
                wanted.insert(name.clone(), definition.clone());
            }
        }
    }
    wanted
}
