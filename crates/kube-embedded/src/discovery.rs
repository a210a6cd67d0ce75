//! Discovery: which groups, versions and resources there are, in the plain and in the aggregated form.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::handlers::fixed;
use crate::handlers::reviews::REVIEWS;
use crate::registry::{Builtin, Resource, Table};
use crate::server::Api;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(crate) fn root(table: &Table) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(table) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    json!({ "paths": paths })
}

/// The named groups and their versions, the core group left out.
fn groups(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for group in table.groups().into_iter().filter(|group| !group.is_empty()) {
        groups.push((group.to_owned(), table.versions(group).into_iter().map(str::to_owned).collect()));
    }
    for (group, ..) in REVIEWS {
        if !groups.iter().any(|(name, _)| name == group) {
            groups.push((group.to_owned(), vec!["v1".to_owned()]));
        }
    }
    groups
}

fn wants_aggregated(headers: &HeaderMap) -> ApiResult<bool> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    for choice in accept.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        match media {
            "application/json" if parts.contains(&"g=apidiscovery.k8s.io") => {
                let known = parts.contains(&"v=v2") && parts.contains(&"as=APIGroupDiscoveryList");
                if known {
                    return Ok(true);
                }
            }
            "application/json" | "*/*" | "application/*" | "application/yaml" => return Ok(false),
            // JSON is what we have; kubectl names it beside protobuf.
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(&["application/json", AGGREGATED]))
}

pub(crate) fn api(api: &Api, headers: &HeaderMap) -> ApiResult<Response> {
    let table = api.registry.table();
    if wants_aggregated(headers)? {
        let item = json!({ "metadata": {}, "versions": [discovered(&table, "", "v1")] });
        return Ok(aggregated(&[item], headers));
    }
    Ok(fixed::json(&json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }],
    })))
}

pub(crate) fn apis(api: &Api, headers: &HeaderMap) -> ApiResult<Response> {
    let table = api.registry.table();
    if wants_aggregated(headers)? {
        let items: Vec<Value> = groups(&table)
            .iter()
            .map(|(group, versions)| {
                let versions: Vec<Value> = versions.iter().map(|version| discovered(&table, group, version)).collect();
                json!({ "metadata": { "name": group }, "versions": versions })
            })
            .collect();
        return Ok(aggregated(&items, headers));
    }
    let groups: Vec<Value> = groups(&table).iter().map(|(group, versions)| group_json(group, versions)).collect();
    Ok(fixed::json(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

pub(crate) fn group(api: &Api, group: &str) -> ApiResult<Response> {
    let table = api.registry.table();
    let groups = groups(&table);
    let (name, versions) = groups.iter().find(|(name, _)| name == group).ok_or_else(ApiError::path_not_found)?;
    let mut json = group_json(name, versions);
    json["kind"] = json!("APIGroup");
    json["apiVersion"] = json!("v1");
    Ok(fixed::json(&json))
}

/// What lies below an object: name, kind and verbs.
fn subresources(resource: &Resource) -> Vec<(&'static str, Value, &'static [&'static str])> {
    let own = || json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let mut list: Vec<(&'static str, Value, &'static [&'static str])> = Vec::new();
    if resource.builtin == Some(Builtin::Pod) {
        list.push(("binding", json!({ "group": "", "version": "v1", "kind": "Binding" }), &["create"]));
    }
    if resource.builtin == Some(Builtin::Namespace) {
        list.push(("finalize", own(), &["update"]));
    }
    if resource.scale.is_some() {
        let scale = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
        list.push(("scale", scale, &["get", "patch", "update"]));
    }
    if resource.status {
        list.push(("status", own(), &["get", "patch", "update"]));
    }
    list
}

fn discovered(table: &Table, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for resource in table.in_version(group, version) {
        let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
        let mut json = Map::new();
        json.insert("resource".into(), json!(resource.plural));
        json.insert("responseKind".into(), kind);
        json.insert("scope".into(), json!(if resource.namespaced { "Namespaced" } else { "Cluster" }));
        json.insert("singularResource".into(), json!(resource.singular));
        json.insert("verbs".into(), json!(resource.verbs()));
        if !resource.short_names.is_empty() {
            json.insert("shortNames".into(), json!(resource.short_names));
        }
        if !resource.categories.is_empty() {
            json.insert("categories".into(), json!(resource.categories));
        }
        let below: Vec<Value> = subresources(resource)
            .into_iter()
            .map(|(name, kind, verbs)| json!({ "subresource": name, "responseKind": kind, "verbs": verbs }))
            .collect();
        if !below.is_empty() {
            json.insert("subresources".into(), json!(below));
        }
        resources.push(Value::Object(json));
    }
    for (_, plural, kind, _) in REVIEWS.iter().filter(|(name, ..)| *name == group) {
        resources.push(json!({
            "resource": plural, "responseKind": { "group": group, "version": "v1", "kind": kind },
            "scope": "Cluster", "singularResource": kind.to_lowercase(), "verbs": ["create"],
        }));
    }
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

fn aggregated(items: &[Value], headers: &HeaderMap) -> Response {
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let tag = format!("\"{}\"", hash(body.to_string().as_bytes()));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(tag.as_str());
    let mut response = if known {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        fixed::json(&body)
    };
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    map.insert(header::VARY, HeaderValue::from_static("Accept"));
    map.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        map.insert(header::ETAG, tag);
    }
    response
}

/// SHA-512 in capitals, as Kubernetes' ETags are.
pub(crate) fn hash(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(crate) fn resources(api: &Api, group: &str, version: &str) -> ApiResult<Response> {
    let table = api.registry.table();
    let known = table.in_version(group, version);
    let reviews: Vec<_> = REVIEWS.iter().filter(|(name, ..)| *name == group && version == "v1").collect();
    if known.is_empty() && reviews.is_empty() {
        return Err(ApiError::path_not_found());
    }
    let mut list = Vec::new();
    for resource in known {
        let mut json = Map::new();
        json.insert("name".into(), json!(resource.plural));
        json.insert("singularName".into(), json!(resource.singular));
        json.insert("namespaced".into(), json!(resource.namespaced));
        json.insert("kind".into(), json!(resource.kind));
        json.insert("verbs".into(), json!(resource.verbs()));
        if !resource.short_names.is_empty() {
            json.insert("shortNames".into(), json!(resource.short_names));
        }
        if !resource.categories.is_empty() {
            json.insert("categories".into(), json!(resource.categories));
        }
        list.push(Value::Object(json));
        for (name, kind, verbs) in subresources(resource) {
            let mut json = Map::new();
            json.insert("name".into(), json!(format!("{}/{name}", resource.plural)));
            json.insert("singularName".into(), json!(""));
            json.insert("namespaced".into(), json!(resource.namespaced));
            if kind["group"] != json!(resource.group) {
                json.insert("group".into(), kind["group"].clone());
                json.insert("version".into(), kind["version"].clone());
            }
            json.insert("kind".into(), kind["kind"].clone());
            json.insert("verbs".into(), json!(verbs));
            list.push(Value::Object(json));
        }
    }
    for (_, plural, kind, _) in reviews {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(fixed::json(&json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list,
    })))
}
