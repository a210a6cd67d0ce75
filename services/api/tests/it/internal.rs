//! What other services ask.

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use berth_authz::{Authenticated, Authenticator, RemoteAuthenticator};
use berth_clock::SystemClock;
use berth_http::InternalClient;
use serde_json::json;

use crate::support::{Client, config, service, service_with};

#[tokio::test]
async fn another_service_authenticates_through_api() {
    async fn whoami(Authenticated(principal): Authenticated) -> String {
        principal.email.clone()
    }
    async fn maybe(principal: Option<Authenticated>) -> String {
        principal.map_or_else(|| "nobody".to_owned(), |Authenticated(principal)| principal.email.clone())
    }
    let service = service().await;
    let ada = service.person("ada").await;
    let api = InternalClient::in_process("api", service.internal.clone());
    let authenticator: Arc<dyn Authenticator> = Arc::new(RemoteAuthenticator::new(api));
    let router = Router::new().route("/", get(whoami)).route("/maybe", get(maybe)).layer(Extension(authenticator));
    assert_eq!(ada.client.at(router.clone()).get("/").await.body, json!("ada@example.com"));
    Client::new(router.clone()).get("/").await.is_problem(401, "unauthorized");
    assert_eq!(Client::new(router.clone()).get("/maybe").await.body, json!("nobody"));
    Client::new(router.clone()).bearer("x").get("/maybe").await.is_problem(401, "unauthorized");
    assert_eq!(service.root().at(router).get("/").await.body, json!("root@localhost"));
}

#[tokio::test]
async fn another_services_routes_get_the_same_layers() {
    let service = service().await;
    let ada = service.person("ada").await;
    let router = Router::new().route("/api/v1/usage", axum::routing::post(async || "done"));
    let router = service.api.protect(router);
    let keyed = ada.client.clone().at(router.clone()).header("idempotency-key", "k");
    let first = keyed.post("/api/v1/usage", json!({})).await;
    assert_eq!((first.status, first.header("ratelimit-limit")), (200, "1000"));
    assert_eq!(keyed.post("/api/v1/usage", json!({})).await.header("idempotency-replayed"), "true");
    Client::new(router).post("/api/v1/usage", json!({})).await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn the_gateway_asks_whether_somebody_may() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let token = ada.client.post("/api/v1/tokens", json!({ "name": "x" })).await.text("secret");
    let hers = grace.client.post("/api/v1/tokens", json!({ "name": "x" })).await.text("secret");
    let made = ada
        .client
        .post("/api/v1/workspaces?wait=true", json!({ "context_url": "https://git.example.com/team/hello" }))
        .await;
    let internal = Client::new(service.internal.clone());
    let ask = async |token: &str, action: &str| {
        let body =
            json!({ "authorization": format!("Bearer {token}"), "workspace": made.text("id"), "action": action });
        internal.post("/internal/authorize", body).await
    };
    let answer = ask(&token, "exec").await;
    assert_eq!(
        (answer.status, answer.text("node"), answer.text("phase")),
        (200, "node-1".into(), "Running".into()),
        "{answer:?}"
    );
    assert_eq!(answer.text("instance_id"), made.text("instance_id"));
    ask(&hers, "exec").await.is_problem(404, "not_found");
    ask("x", "exec").await.is_problem(401, "unauthorized");
    let by_name = json!({ "authorization": null, "local_admin": true, "workspace": "hello", "action": "connect" });
    assert_eq!(internal.post("/internal/authorize", by_name).await.status, 200);
    let info = internal.get(&format!("/internal/workspaces/{}", made.text("id"))).await;
    assert_eq!(info.body["context"]["context"]["name"], "hello");
    assert_eq!(info.body["workspace"]["name"], "hello");
    internal.get("/internal/workspaces/019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn what_comes_past_the_limits_counts_where_it_asks() {
    let service =
        service_with(berth_api::Config { requests_per_second: 1, request_burst: 3, ..config() }, SystemClock::shared())
            .await;
    let ada = service.person("ada").await;
    let token = ada.client.post("/api/v1/tokens", json!({ "name": "x" })).await.text("secret");
    ada.client.workspace(json!({ "start": false })).await;
    let internal = Client::new(service.internal.clone());
    let ask = async |uncounted: bool| {
        let body = json!({ "authorization": format!("Bearer {token}"), "workspace": "hello", "action": "read", "uncounted": uncounted });
        internal.post("/internal/authorize", body).await
    };
    for _ in 0..10 {
        assert_eq!(ask(false).await.status, 200, "an open connection's right is asked for again and again");
    }
    let mut asked = 0;
    while ask(true).await.status == 200 {
        asked += 1;
        assert!(asked < 100, "no limit");
    }
    ask(true).await.is_problem(429, "rate_limited");
    assert_eq!(ask(false).await.status, 200);
}

#[tokio::test]
async fn what_is_done_in_a_workspace_is_in_the_audit_log() {
    let service = service().await;
    let (ada, eve) = (service.person("ada").await, service.person("eve").await);
    let made = ada.client.workspace(json!({ "start": false })).await;
    let internal = Client::new(service.internal.clone());
    let act = async |client: &Client| {
        let token = client.post("/api/v1/tokens", json!({ "name": "x" })).await.text("secret");
        let act = json!({ "name": "workspace.exec", "detail": { "program": "make" } });
        let body = json!({ "authorization": format!("Bearer {token}"), "workspace": made.text("id"), "action": "exec", "act": act });
        internal.post("/internal/authorize", body).await
    };
    let answer = act(&ada.client).await;
    assert_eq!((answer.status, answer.text("workspace_name")), (200, "hello".to_owned()));
    act(&eve.client).await.is_problem(404, "not_found");
    let log = service.root().get("/api/v1/audit?action=workspace.exec").await;
    let rows = log.body["items"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "who may not, does not: {rows:?}");
    assert_eq!((&rows[0]["target_id"], &rows[0]["target"]), (&made.body["id"], &json!("hello")));
    assert_eq!((&rows[0]["actor_id"], &rows[0]["detail"]["program"]), (&json!(ada.id), &json!("make")));
    assert!(rows[0]["credential"].as_str().unwrap().starts_with("token:"));
}
