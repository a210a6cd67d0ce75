//! Personal access tokens.

use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Service, config, service_at_rest, service_with};

async fn token(service: &Service, client: &crate::support::Client, days: u32) -> (String, crate::support::Client) {
    let made = client.post("/api/v1/tokens", json!({ "name": "ci", "expires_in_days": days })).await;
    assert_eq!(made.status, 201, "{made:?}");
    (made.text("id"), service.nobody().bearer(&made.text("secret")))
}

#[tokio::test]
async fn a_token_is_shown_once_kept_as_a_hash_and_void_when_revoked() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    let made = ada.client.post("/api/v1/tokens", json!({ "name": "ci" })).await;
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = made.text("secret");
    assert!(secret.starts_with("berth_pat_") && secret.len() == 46, "{secret}");
    assert!(secret.starts_with(&made.text("prefix")) && made.text("prefix").len() == 14);
    let listed = ada.client.get("/api/v1/tokens").await;
    assert!(!listed.body.to_string().contains(&secret));
    assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(service.count("SELECT count(*) FROM api.tokens WHERE octet_length(hash) = 32").await, 2);

    let ci = service.nobody().bearer(&secret);
    assert_eq!(ci.get("/api/v1/users/me").await.text("email"), "ada@example.com");
    let used = ada.client.get("/api/v1/tokens").await;
    assert!(used.body["items"].as_array().unwrap().iter().all(|token| token["last_used_at"].is_string()), "{used:?}");
    let grace = service.person("grace").await;
    let path = format!("/api/v1/tokens/{}", made.text("id"));
    grace.client.delete(&path).await.is_problem(404, "not_found");
    assert_eq!(ada.client.delete(&path).await.status, 204);
    ci.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    ada.client.delete(&path).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn a_token_ends_on_its_day() {
    let (service, clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let (_, ci) = token(&service, &ada.client, 7).await;
    clock.advance(TimeDelta::days(7) - TimeDelta::seconds(1));
    assert_eq!(ci.get("/api/v1/users/me").await.status, 200);
    clock.advance(TimeDelta::seconds(1));
    ci.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    for days in [0, 367] {
        let answer = ada.client.post("/api/v1/tokens", json!({ "name": "ci", "expires_in_days": days })).await;
        answer.is_problem(422, "invalid_expiry");
    }
}

#[tokio::test]
async fn wrong_tokens_are_named_and_limited() {
    let (service, clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let (_, good) = token(&service, &ada.client, 7).await;
    for wrong in ["x", "berth_pat_x", "berth_pat_000000000000000000000000000000000000"] {
        service.nobody().bearer(wrong).get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    }
    service
        .nobody()
        .header("authorization", "Basic YTpi")
        .get("/api/v1/users/me")
        .await
        .is_problem(401, "unauthorized");
    good.clone().header("authorization", "Bearer x").get("/api/v1/users/me").await.is_problem(400, "duplicate_header");
    let mut last = 0;
    for _ in 0..200 {
        last = service.nobody().bearer("x").get("/api/v1/users/me").await.status;
    }
    assert_eq!(last, 429, "guessing is limited");
    assert_eq!(good.get("/api/v1/users/me").await.status, 200, "and hurts nobody else");
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(service.nobody().bearer("x").get("/api/v1/users/me").await.status, 401);
}

#[tokio::test]
async fn requests_are_limited_by_user_and_the_headers_say_how_much_is_left() {
    let clock =
        std::sync::Arc::new(berth_clock::ManualClock::new(chrono::DateTime::UNIX_EPOCH + TimeDelta::days(20_000)));
    let config = berth_api::Config { requests_per_second: 1, request_burst: 4, ..config() };
    let service = service_with(config, clock.clone()).await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let (_, second) = token(&service, &ada.client, 7).await;
    let answer = ada.client.get("/api/v1/users/me").await;
    assert_eq!((answer.header("ratelimit-limit"), answer.header("ratelimit-remaining")), ("4", "1"));
    assert_eq!(answer.header("ratelimit-reset"), "3");
    assert_eq!(second.get("/api/v1/users/me").await.status, 200);
    let limited = second.get("/api/v1/users/me").await;
    limited.is_problem(429, "rate_limited");
    assert_eq!(limited.header("retry-after"), "1");
    assert_eq!(grace.client.get("/api/v1/users/me").await.status, 200);
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(second.get("/api/v1/users/me").await.status, 200);
}
