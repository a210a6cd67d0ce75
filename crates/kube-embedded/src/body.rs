//! Reading request bodies: JSON with an eye on duplicate members, YAML, and the protobuf that kubectl sends.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::protobuf;

/// Longest body, as kube-apiserver has it.
pub(crate) const LIMIT: usize = 3 << 20;

/// Reads the whole body.
pub(crate) async fn read(body: axum::body::Body) -> ApiResult<Bytes> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::body_too_large(LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
    }
}

/// The media type of the body, without parameters.
pub(crate) fn media(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .unwrap_or_default()
}

/// A parsed body and the members that were given twice.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// Parses an object sent to create or replace.
pub(crate) fn parse(media: &str, bytes: &[u8]) -> ApiResult<Parsed> {
    match media {
        "" | "application/json" => json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => {
            protobuf::decode(bytes).map(|value| Parsed { value, duplicates: Vec::new() })
        }
        _ => Err(ApiError::unsupported_media(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ])),
    }
}

pub(crate) fn json(bytes: &[u8]) -> ApiResult<Parsed> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { path: String::new(), duplicates: &mut duplicates }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| {
            ApiError::bad_request(format!("the object provided is unrecognized (must be of type object): {error}"))
        })?;
    Ok(Parsed { value, duplicates })
}

pub(crate) fn yaml(bytes: &[u8]) -> ApiResult<Parsed> {
    // Every JSON text is YAML, and clients send JSON under the YAML media type; this path is the faster and stricter one.
    if bytes.first() == Some(&b'{') {
        return json(bytes);
    }
    let value: Value = serde_yaml_ng::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    Ok(Parsed { value, duplicates: Vec::new() })
}

struct Node<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match access.next_element_seed(Node { path, duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if members.contains_key(&name) {
                self.duplicates.push(path.clone());
            }
            let value = access.next_value_seed(Node { path, duplicates: self.duplicates })?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_by_path() {
        let parsed = json(br#"{"spec":{"a":1,"a":2,"l":[{"b":1,"b":null}]}}"#).unwrap();
        assert_eq!(parsed.duplicates, ["spec.a", "spec.l[0].b"]);
        assert_eq!(parsed.value["spec"]["a"], 2);
        assert!(json(b"{} x").is_err() && json(b"").is_err());
    }
}
