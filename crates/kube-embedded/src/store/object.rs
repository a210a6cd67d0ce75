//! A stored object: its JSON as sent, and the few facts that reads need without parsing it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

/// The name of a collection, unique over all groups: `pods`, `workspaces.berth.dev`.
pub(crate) type CollectionName = Arc<str>;

/// Where an object lies inside its collection. Orders by namespace, then name, as lists must.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// An object anywhere in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) collection: CollectionName,
    pub(crate) key: Key,
}

/// What selectors, garbage collection and deletion ask of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) uid: Box<str>,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the resource's selectable fields, in the resource's order.
    pub(crate) fields: Box<[Box<str>]>,
    pub(crate) owners: Box<[Box<str>]>,
    pub(crate) deleting: bool,
}

impl Facts {
    /// Reads them out of `object`; `paths` are the selectable fields as lists of keys.
    pub(crate) fn of(object: &Value, paths: &[FieldPath]) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().into();
        Self {
            uid: text(&metadata["uid"]),
            labels: metadata["labels"]
                .as_object()
                .map(|labels| labels.iter().map(|(key, value)| (key.as_str().into(), text(value))).collect())
                .unwrap_or_default(),
            fields: paths.iter().map(|path| path.read(object)).collect(),
            owners: metadata["ownerReferences"]
                .as_array()
                .map(|owners| owners.iter().map(|owner| text(&owner["uid"])).collect())
                .unwrap_or_default(),
            deleting: metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()),
        }
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

/// A field that selectors may name, and where it lies in the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldPath {
    pub(crate) label: Box<str>,
    pub(crate) keys: Box<[Box<str>]>,
    /// What a missing field counts as.
    pub(crate) missing: &'static str,
}

impl FieldPath {
    pub(crate) fn new(label: &str) -> Self {
        Self::at(label, label)
    }

    /// A field named `label` that lies at the dotted `path`.
    pub(crate) fn at(label: &str, path: &str) -> Self {
        Self {
            label: label.into(),
            keys: path.split('.').filter(|key| !key.is_empty()).map(Into::into).collect(),
            missing: "",
        }
    }

    pub(crate) fn missing(mut self, text: &'static str) -> Self {
        self.missing = text;
        self
    }

    fn read(&self, object: &Value) -> Box<str> {
        let mut at = object;
        for key in &self.keys {
            at = &at[&**key];
        }
        match at {
            Value::Null => self.missing.into(),
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        }
    }
}

/// A committed object.
///
/// `bytes` always starts with `{"apiVersion":"..","kind":"..",` (that is `head` bytes), so that another version's or an
/// item's form is a splice away, and holds the revision at `revision_at`.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) bytes: Bytes,
    pub(crate) head: usize,
    revision_at: usize,
    pub(crate) facts: Facts,
}

impl Object {
    /// The parsed JSON. What is stored was written by us, so this cannot fail but by corruption, which reads as `null`.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// Everything after apiVersion and kind: `"metadata":{..},..}`.
    pub(crate) fn tail(&self) -> Bytes {
        self.bytes.slice(self.head..)
    }

    /// The same state under another revision: what a deletion event carries.
    pub(crate) fn at_revision(&self, revision: u64) -> Self {
        let old = self.revision.to_string().len();
        let mut bytes = Vec::with_capacity(self.bytes.len() + 4);
        bytes.extend_from_slice(&self.bytes[..self.revision_at]);
        bytes.extend_from_slice(revision.to_string().as_bytes());
        bytes.extend_from_slice(&self.bytes[self.revision_at + old..]);
        Self {
            key: self.key.clone(),
            revision,
            bytes: bytes.into(),
            head: self.head,
            revision_at: self.revision_at,
            facts: self.facts.clone(),
        }
    }
}

/// An object on its way into the store: all but its revision.
#[derive(Debug)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    head: usize,
    revision_at: usize,
    facts: Facts,
}

impl Draft {
    pub(crate) fn new(object: &Value, paths: &[FieldPath]) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(b"{\"apiVersion\":");
        write_json(&mut bytes, &object["apiVersion"]);
        bytes.extend_from_slice(b",\"kind\":");
        write_json(&mut bytes, &object["kind"]);
        bytes.push(b',');
        let head = bytes.len();
        bytes.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
        let revision_at = bytes.len();
        bytes.push(b'"');
        if let Some(metadata) = object["metadata"].as_object() {
            for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() != "resourceVersion") {
                bytes.push(b',');
                write_member(&mut bytes, key, value);
            }
        }
        bytes.push(b'}');
        if let Some(members) = object.as_object() {
            for (key, value) in members {
                if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    bytes.push(b',');
                    write_member(&mut bytes, key, value);
                }
            }
        }
        bytes.push(b'}');
        Self { bytes, head, revision_at, facts: Facts::of(object, paths) }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn commit(&self, key: Key, revision: u64) -> Object {
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + digits.len());
        bytes.extend_from_slice(&self.bytes[..self.revision_at]);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.revision_at..]);
        Object {
            key,
            revision,
            bytes: bytes.into(),
            head: self.head,
            revision_at: self.revision_at,
            facts: self.facts.clone(),
        }
    }
}

fn write_json(bytes: &mut Vec<u8>, value: &Value) {
    // Writing a `Value` into a `Vec` has no way to fail: keys are strings and the sink grows.
    if serde_json::to_writer(&mut *bytes, value).is_err() {
        bytes.extend_from_slice(b"null");
    }
}

fn write_member(bytes: &mut Vec<u8>, key: &str, value: &Value) {
    if serde_json::to_writer(&mut *bytes, key).is_ok() {
        bytes.push(b':');
        write_json(bytes, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_spliced_in_and_replaced() {
        let value = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"a": 1},
            "metadata": {"name": "p", "resourceVersion": "7", "labels": {"app": "x"}}});
        let draft = Draft::new(&value, &[FieldPath::new("spec.a")]);
        let object = draft.commit(Key::new("n", "p"), 41);
        assert_eq!(object.value()["metadata"]["resourceVersion"], "41");
        assert!(object.bytes.starts_with(br#"{"apiVersion":"v1","kind":"Pod","metadata":"#));
        assert_eq!(&*object.facts.fields[0], "1");
        let gone = object.at_revision(1000);
        assert_eq!(gone.value()["metadata"]["resourceVersion"], "1000");
        assert_eq!(gone.value()["spec"], object.value()["spec"]);
    }
}
