//! Field ownership, as `metadata.managedFields` records it.

pub(crate) mod manage;
pub(crate) mod typed;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields of an object: a node for each path, in the form of FieldsV1.
///
/// Children are keyed by the path element as FieldsV1 writes it: `f:name`, `k:{"name":"a"}`, `v:"x"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Whether this path itself is a member.
    pub(crate) owned: bool,
    pub(crate) children: BTreeMap<String, Set>,
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        !self.owned && self.children.values().all(Self::is_empty)
    }

    pub(crate) fn child(&mut self, element: String) -> &mut Self {
        self.children.entry(element).or_default()
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.owned |= other.owned;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().union(child);
        }
    }

    /// Takes the members of `other` away.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.owned {
            self.owned = false;
        }
        for (element, child) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(child);
            }
        }
        self.children.retain(|_, child| !child.is_empty());
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { owned: self.owned && other.owned, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                let common = child.intersection(other);
                if !common.is_empty() {
                    both.children.insert(element.clone(), common);
                }
            }
        }
        both
    }

    /// Reads FieldsV1; `None` if it is not an object of objects.
    pub(crate) fn parse(json: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, child) in json.as_object()? {
            if element == "." {
                set.owned = true;
            } else {
                let child_object = child.as_object()?;
                let mut parsed = Self::parse(child)?;
                // A leaf is written as an empty object.
                parsed.owned |= child_object.is_empty();
                set.children.insert(element.clone(), parsed);
            }
        }
        Some(set)
    }

    /// Writes FieldsV1.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (element, child) in &self.children {
            let mut json = child.to_json();
            if child.owned
                && !child.children.is_empty()
                && let Some(json) = json.as_object_mut()
            {
                json.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(element.clone(), json);
        }
        Value::Object(map)
    }

    /// The members as paths: `.spec.image`, `.spec.env[name="A"].value`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, at: &str, paths: &mut Vec<String>) {
        if self.owned {
            paths.push(at.to_owned());
        }
        for (element, child) in &self.children {
            child.collect(&format!("{at}{}", element_text(element)), paths);
        }
    }
}

fn element_text(element: &str) -> String {
    let (kind, rest) = element.split_at(element.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_v1_survives_a_round_trip() {
        let json = json!({"f:spec": {".": {}, "f:image": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}}});
        let set = Set::parse(&json).unwrap();
        assert_eq!(set.to_json(), json);
        assert_eq!(
            set.paths(),
            [
                ".spec",
                ".spec.env[name=\"A\"]",
                ".spec.env[name=\"A\"].name",
                ".spec.env[name=\"A\"].value",
                ".spec.image"
            ]
        );
    }

    #[test]
    fn subtracting_leaves_what_others_do_not_name() {
        let mut mine = Set::parse(&json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}})).unwrap();
        mine.subtract(&Set::parse(&json!({"f:a": {}, "f:b": {"f:c": {}}})).unwrap());
        assert_eq!(mine.to_json(), json!({"f:b": {}}));
    }
}
