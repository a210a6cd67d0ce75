//! Measures single requests in one process, in memory: `cargo run --release -p berth-kube-embedded --example latency`.

#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::time::{Duration, Instant};

use axum::body::Body;
use berth_kube_embedded::Builder;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

const COUNT: usize = 10_000;

async fn measure(name: &str, router: &axum::Router, request: impl Fn(usize) -> Request<Body>) -> anyhow::Result<()> {
    let mut times: Vec<Duration> = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        let request = request(index);
        let started = Instant::now();
        let response = router.clone().oneshot(request).await?;
        anyhow::ensure!(response.status().is_success(), "{name}: {}", response.status());
        response.into_body().collect().await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(COUNT * share / 100).min(COUNT - 1)];
    println!("{name:<14} p50 {:>9?}  p99 {:>9?}", at(50), at(99));
    Ok(())
}

fn request(method: Method, path: &str, media: &str, body: String) -> Request<Body> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    if let Ok(media) = media.parse() {
        request.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    request
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let crd = json!({
        "metadata": { "name": "workspaces.berth.dev" },
        "spec": {
            "group": "berth.dev", "scope": "Namespaced", "names": { "plural": "workspaces", "kind": "Workspace" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} }, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": {
                    "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } }],
        },
    });
    let server = Builder::new().crd(serde_json::from_value(crd)?).start().await?;
    let router = server.router();
    let all = "/apis/berth.dev/v1/namespaces/default/workspaces";
    let env: Vec<_> = (0..20).map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": "x".repeat(40) })).collect();
    let object = |index: usize| {
        json!({ "apiVersion": "berth.dev/v1", "kind": "Workspace", "metadata": { "name": format!("w{index}") },
            "spec": { "owner": "ann", "image": "debian", "env": env } })
        .to_string()
    };
    measure("create", &router, |n| request(Method::POST, all, "application/json", object(n))).await?;
    measure("get", &router, |n| request(Method::GET, &format!("{all}/w{n}"), "", String::new())).await?;
    measure("status patch", &router, |n| {
        let body = json!({ "status": { "phase": "Running", "n": n } }).to_string();
        request(Method::PATCH, &format!("{all}/w{n}/status"), "application/merge-patch+json", body)
    })
    .await?;
    server.shutdown().await;
    Ok(())
}
