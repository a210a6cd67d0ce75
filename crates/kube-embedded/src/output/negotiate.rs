//! Which form of an answer the client accepts.

use http::{HeaderMap, header};

use crate::error::{ApiError, ApiResult};

/// The shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Table,
    Partial,
    PartialList,
}

/// Shape and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) shape: Shape,
    pub(crate) yaml: bool,
    pub(crate) pretty: bool,
}

const ACCEPTED: [&str; 2] = ["application/json", "application/yaml"];

/// Reads `Accept`. Protobuf is passed over: whoever sends it offers JSON as well, or gets 406.
pub(crate) fn negotiate(headers: &HeaderMap, pretty: Option<&str>) -> ApiResult<Form> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let pretty = match pretty {
        Some(value) => !matches!(value, "false" | "0"),
        None => agent.starts_with("curl") || agent.starts_with("Mozilla") || agent.starts_with("Wget"),
    };
    for choice in accept.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let yaml = matches!(media, "application/yaml" | "application/x-yaml" | "text/yaml");
        if !(yaml || matches!(media, "application/json" | "*/*" | "application/*" | "")) {
            continue;
        }
        let (mut kind, mut group, mut version) = ("", "", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        let shape = match kind {
            "" => Shape::Plain,
            _ if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") => continue,
            "Table" => Shape::Table,
            "PartialObjectMetadata" => Shape::Partial,
            "PartialObjectMetadataList" => Shape::PartialList,
            _ => continue,
        };
        return Ok(Form { shape, yaml, pretty });
    }
    Err(ApiError::not_acceptable(&ACCEPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(accept: &str) -> Option<Shape> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        negotiate(&headers, None).ok().map(|form| form.shape)
    }

    #[test]
    fn the_first_known_choice_wins() {
        assert_eq!(
            shape(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            Some(Shape::Table)
        );
        assert_eq!(shape("application/vnd.kubernetes.protobuf,application/json"), Some(Shape::Plain));
        assert_eq!(shape("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(shape("application/json;as=Other;v=v1;g=x,application/json"), Some(Shape::Plain));
    }
}
