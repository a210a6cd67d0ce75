//! `Idempotency-Key`.

use serde_json::json;

use crate::support::ws_manager::Mood;
use crate::support::{config, service, service_at_rest};

#[tokio::test]
async fn the_same_request_is_done_once_and_answered_again() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let keyed = ada.client.clone().header("idempotency-key", "k-1");
    let body = || json!({ "start": false });
    let first = keyed.workspace(body()).await;
    let again = keyed.workspace(body()).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    for name in ["location", "etag", "content-type"] {
        assert_eq!(first.header(name), again.header(name));
    }
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    keyed.workspace(json!({ "start": false, "name": "other" })).await.is_problem(409, "idempotency_key_reused");
    keyed.post("/api/v1/organizations", json!({ "name": "x" })).await.is_problem(409, "idempotency_key_reused");
    let hers = grace.client.clone().header("idempotency-key", "k-1").workspace(body()).await;
    assert_ne!(hers.text("id"), first.text("id"), "keys belong to users");
    assert_eq!(service.count("SELECT count(*) FROM api.workspaces").await, 2);
    let refused = ada.client.clone().header("idempotency-key", "k-2");
    refused.workspace(json!({ "class": "huge" })).await.is_problem(422, "unknown_class");
    let replayed = refused.workspace(json!({ "class": "huge" })).await;
    replayed.is_problem(422, "unknown_class");
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    for bad in ["", " ", &"x".repeat(201), "a b"] {
        let bad = ada.client.clone().header("idempotency-key", bad);
        bad.workspace(body()).await.is_problem(400, "invalid_idempotency_key");
    }
}

#[tokio::test]
async fn the_same_request_at_the_same_moment_waits_for_the_first() {
    let service = service().await;
    let ada = service.person("ada").await;
    let keyed = ada.client.clone().header("idempotency-key", "k");
    let (a, b, c) = tokio::join!(keyed.workspace(json!({})), keyed.workspace(json!({})), keyed.workspace(json!({})));
    assert_eq!(a.text("id"), b.text("id"));
    assert_eq!(a.text("id"), c.text("id"));
    assert_eq!(service.count("SELECT count(*) FROM api.workspaces").await, 1);
}

#[tokio::test]
async fn a_failure_of_ours_is_not_kept() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    let keyed = ada.client.clone().header("idempotency-key", "k");
    service.ws_manager.mood(Mood::Down);
    // The classes cannot be had.
    keyed.workspace(json!({})).await.is_problem(503, "unavailable");
    service.ws_manager.mood(Mood::Runs);
    assert_eq!(keyed.workspace(json!({})).await.status, 201);
}

#[tokio::test]
async fn a_secret_is_not_kept_for_repetition() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    let keyed = ada.client.clone().header("idempotency-key", "k");
    let made = keyed.post("/api/v1/tokens", json!({ "name": "ci" })).await;
    assert_eq!(made.status, 201);
    let again = keyed.post("/api/v1/tokens", json!({ "name": "ci" })).await;
    again.is_problem(409, "already_done");
    assert!(again.text("detail").contains(&made.text("id")));
    let kept: Vec<u8> =
        sqlx::query_scalar("SELECT body FROM api.idempotency").fetch_one(&service.database.pool).await.unwrap();
    assert!(!String::from_utf8_lossy(&kept).contains(&made.text("secret")));
}

#[tokio::test]
async fn a_request_whose_process_died_gets_what_that_process_made() {
    let (service, clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let keyed = ada.client.clone().header("idempotency-key", "k");
    let made = keyed.workspace(json!({ "start": false })).await;
    // As if the process died after the commit, before the answer was kept.
    sqlx::query("UPDATE api.idempotency SET status = NULL, body = NULL").execute(&service.database.pool).await.unwrap();
    clock.advance(chrono::TimeDelta::hours(1));
    let next = service.restarted(config());
    let again = keyed.at(next.router()).workspace(json!({ "start": false })).await;
    assert_eq!((again.status, again.text("id")), (201, made.text("id")), "{again:?}");
    assert_eq!(service.count("SELECT count(*) FROM api.workspaces").await, 1);
}
