//! Objects are read from objects alone: code that serde derives would also take a list of the fields' values for one.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What is read from an object.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfMap(PhantomData)).map(Self)
    }
}

struct OfMap<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a whole document that is an object.
pub(crate) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).map(|Object(value)| value)
}

/// Reads `null` as absent.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.map(|Object(value)| value))
}

/// Reads `null` as the default.
pub(super) fn object_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    object(deserializer).map(Option::unwrap_or_default)
}

/// Reads `null` as an empty list.
pub(super) fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<Vec<Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(list.into_iter().map(|Object(value)| value).collect())
}

/// Reads `null` as no objects.
pub(super) fn named_objects<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let named = Option::<BTreeMap<String, Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(named.into_iter().map(|(name, Object(value))| (name, value)).collect())
}

#[cfg(test)]
mod tests {
    use super::from_slice;
    use crate::spec::Spec;

    #[test]
    fn a_list_is_no_object_wherever_it_stands() {
        for text in [
            "[]",
            r#"{"process": []}"#,
            r#"{"root": ["/", true]}"#,
            r#"{"linux": []}"#,
            r#"{"process": {"user": []}}"#,
            r#"{"mounts": [["/x", "tmpfs"]]}"#,
            r#"{"hooks": {"prestart": [["/bin/true"]]}}"#,
            r#"{"linux": {"resources": {"memory": [1]}}}"#,
            r#"{"linux": {"netDevices": {"eth0": []}}}"#,
            r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [[["read"], "SCMP_ACT_ERRNO"]]}}}"#,
        ] {
            let error = from_slice::<Spec>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("invalid type: sequence, expected an object"), "{text}: {error}");
        }
    }

    #[test]
    fn null_is_absent() {
        let text = r#"{"process": {"user": null, "rlimits": null}, "linux": {"resources": null, "netDevices": null}}"#;
        let spec: Spec = from_slice(text.as_bytes()).unwrap();
        assert_eq!(spec.process, Some(crate::spec::Process::default()));
        assert_eq!(spec.linux, Some(crate::spec::Linux::default()));
    }
}
