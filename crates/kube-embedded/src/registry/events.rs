//! An event as `events.k8s.io/v1` writes it, out of the stored core form; and back. The two are renamings of each other.

use serde_json::Value;

const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(event: &mut Value, api_version: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(members) = event.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
    members.insert("apiVersion".to_owned(), api_version.into());
}

pub(crate) fn from_core(event: &mut Value) {
    rename(event, "events.k8s.io/v1", NAMES.into_iter());
}

pub(crate) fn to_core(event: &mut Value) {
    rename(event, "v1", NAMES.into_iter().map(|(core, new)| (new, core)));
}
