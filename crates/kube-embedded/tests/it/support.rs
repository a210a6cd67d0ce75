//! A server in memory, and plain requests to it.

use axum::body::Body;
use berth_kube_embedded::{ApiServer, Builder};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A custom resource with everything in its schema that tests ask for.
#[derive(kube::CustomResource, Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1",
    kind = "Workspace",
    shortname = "ws",
    namespaced,
    status = "WorkspaceStatus",
    selectable = ".spec.owner",
    printcolumn = r#"{"name":"Owner","type":"string","jsonPath":".spec.owner"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#
)]
pub(crate) struct WorkspaceSpec {
    pub(crate) owner: String,
    #[serde(default = "one")]
    pub(crate) replicas: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
}

fn one() -> i32 {
    1
}

#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct WorkspaceStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
}

pub(crate) const WORKSPACES: &str = "/apis/berth.dev/v1/namespaces/default/workspaces";

pub(crate) fn workspace_crd() -> CustomResourceDefinition {
    Workspace::crd()
}

pub(crate) async fn server() -> ApiServer {
    Builder::new().crd(workspace_crd()).start().await.unwrap()
}

pub(crate) async fn call(
    server: &ApiServer,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .body(Body::from(bytes))
        .unwrap();
    let response = server.router().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub(crate) async fn get(server: &ApiServer, path: &str) -> (StatusCode, Value) {
    call(server, Method::GET, path, "", &Value::Null).await
}

pub(crate) async fn post(server: &ApiServer, path: &str, body: &Value) -> (StatusCode, Value) {
    call(server, Method::POST, path, "application/json", body).await
}

pub(crate) async fn put(server: &ApiServer, path: &str, body: &Value) -> (StatusCode, Value) {
    call(server, Method::PUT, path, "application/json", body).await
}

pub(crate) async fn delete(server: &ApiServer, path: &str, body: &Value) -> (StatusCode, Value) {
    call(server, Method::DELETE, path, "application/json", body).await
}

pub(crate) async fn merge(server: &ApiServer, path: &str, body: &Value) -> (StatusCode, Value) {
    call(server, Method::PATCH, path, "application/merge-patch+json", body).await
}

pub(crate) async fn apply(server: &ApiServer, path: &str, manager: &str, body: &Value) -> (StatusCode, Value) {
    let path = format!("{path}?fieldManager={manager}");
    call(server, Method::PATCH, &path, "application/apply-patch+yaml", body).await
}

pub(crate) fn workspace(name: &str) -> Value {
    json!({"apiVersion": "berth.dev/v1", "kind": "Workspace", "metadata": {"name": name}, "spec": {"owner": "ann"}})
}

/// The first line of a watch.
pub(crate) async fn first_line(server: &ApiServer, path: &str) -> Value {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let mut body = server.router().oneshot(request).await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    serde_json::from_slice(frame.data_ref().unwrap()).unwrap()
}
