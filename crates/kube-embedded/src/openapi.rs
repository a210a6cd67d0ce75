//! OpenAPI v3: Kubernetes' own documents for the builtin groups, documents made out of the CRDs for the others.
//!
//! kubectl reads of them what `explain` prints, and that a resource knows the parameter `fieldValidation`.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::discovery::hash;
use crate::error::{ApiError, ApiResult};
use crate::registry::{Resource, Table};
use crate::schema::builtin::{self, DOCUMENTS};
use crate::server::Api;

fn custom_versions(table: &Table) -> Vec<(String, String)> {
    let mut versions: Vec<(String, String)> = table
        .iter()
        .filter(|resource| resource.is_custom())
        .map(|resource| (resource.group.to_string(), resource.version.to_string()))
        .collect();
    versions.dedup();
    versions
}

pub(crate) fn index(api: &Api) -> Response {
    let table = api.registry.table();
    let mut paths = Map::new();
    let mut add = |path: &str, tag: &str| {
        let url = format!("/openapi/v3/{path}?hash={tag}");
        paths.insert(path.to_owned(), json!({ "serverRelativeURL": url }));
    };
    for (path, text) in DOCUMENTS {
        add(path, &hash(text.as_bytes()));
    }
    for (group, version) in custom_versions(&table) {
        // The table's generation changes with every CRD; a hash of the document would mean making it here.
        add(&format!("apis/{group}/{version}"), &format!("{:016X}", table.generation));
    }
    let mut response = Response::new(Body::from(json!({ "paths": paths }).to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// kubectl asks for OpenAPI v2 when v3 does not have a kind. That v2 has none either is what it must hear to say so: without an answer it
/// complains of that. An empty message of protobuf is an empty document.
pub(crate) fn version_2() -> Response {
    let mut response = Response::new(Body::empty());
    let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub(crate) fn document(api: &Api, path: &str, parts: &Parts) -> ApiResult<Response> {
    let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    if !accept.split(',').any(|choice| choice.contains("json") || choice.trim().starts_with("*/*")) {
        return Err(ApiError::not_acceptable(&["application/json"]));
    }
    let body = match DOCUMENTS.iter().find(|(known, _)| *known == path) {
        Some((_, text)) => bytes::Bytes::from_static(text.as_bytes()),
        None => {
            let table = api.registry.table();
            let (group, version) = path
                .strip_prefix("apis/")
                .and_then(|rest| rest.split_once('/'))
                .ok_or_else(ApiError::path_not_found)?;
            let resources: Vec<_> =
                table.in_version(group, version).into_iter().filter(|resource| resource.is_custom()).collect();
            if resources.is_empty() {
                return Err(ApiError::path_not_found());
            }
            custom(&resources).to_string().into()
        }
    };
    let tag = format!("\"{}\"", hash(&body));
    let known = parts.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(tag.as_str());
    let mut response = Response::new(if known { Body::empty() } else { Body::from(body) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    map.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        map.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `dev.berth.v1.Workspace`, the name of a kind in the document.
fn definition_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

fn custom(resources: &[&Arc<Resource>]) -> Value {
    let mut schemas = builtin::meta_definitions();
    let mut paths = Map::new();
    for resource in resources {
        let name = definition_name(resource);
        let gvk = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
        let mut schema = resource.document.as_deref().cloned().unwrap_or_else(|| json!({ "type": "object" }));
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        let text = |description: &str| json!({ "type": "string", "description": description });
        schema["properties"]["apiVersion"] = text(
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        );
        schema["properties"]["kind"] = text(
            "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        );
        schema["properties"]["metadata"] = json!({
            "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            "allOf": [{ "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" }],
        });
        schemas.insert(name.clone(), schema);
        let list = json!({
            "type": "object", "required": ["items"],
            "properties": {
                "apiVersion": { "type": "string" }, "kind": { "type": "string" },
                "items": { "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } },
                "metadata": { "allOf": [{ "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta" }] },
            },
            "x-kubernetes-group-version-kind":
                [{ "group": resource.group, "version": resource.version, "kind": resource.list_kind }],
        });
        schemas.insert(format!("{name}List"), list);
        operations(resource, &name, &gvk, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes CRD Swagger", "version": "v0.1.0" },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operations(resource: &Resource, name: &str, gvk: &Value, paths: &mut Map<String, Value>) {
    let base = format!("/apis/{}/{}", resource.group, resource.version);
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let operation = |action: &str, parameters: &[&str], schema: &str| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } }))
            .collect();
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
            "parameters": parameters,
            "responses": { "200": { "description": "OK", "content": {
                "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } } } },
        })
    };
    let list = format!("{name}List");
    let status = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let item = json!({
        "get": operation("get", &[], name),
        "put": operation("put", &write, name),
        "patch": operation("patch", &["dryRun", "fieldManager", "fieldValidation", "force"], name),
        "delete": operation("delete", &["dryRun"], status),
    });
    if resource.namespaced {
        paths.insert(format!("{base}/{}", resource.plural), json!({ "get": operation("list", &[], &list) }));
    }
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", &[], &list),
            "post": operation("post", &write, name),
            "delete": operation("deletecollection", &["dryRun"], status),
        }),
    );
    if resource.status {
        let mut status = item.clone();
        if let Some(status) = status.as_object_mut() {
            status.remove("delete");
        }
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
    paths.insert(format!("{collection}/{{name}}"), item);
}
