//! The first administrator, signing in and out, and what a cookie is good for.

use axum::http::Method;
use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Client, ORIGIN, Service, config, service_at_rest, service_with};

const PASSWORD: &str = "a fine sentence of words";

async fn set_up(service: &Service) -> String {
    let link = service.api.setup_link().await.unwrap().unwrap();
    let token = link.strip_prefix(&format!("{ORIGIN}/setup#")).unwrap();
    let body = json!({ "token": token, "name": "Ada", "email": "Ada@Example.com", "password": PASSWORD });
    let answer = service.nobody().post("/api/v1/setup", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!((answer.text("email"), answer.body["admin"].as_bool()), ("Ada@example.com".into(), Some(true)));
    cookie(answer.header("set-cookie"))
}

fn cookie(set: &str) -> String {
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(set.starts_with("__Host-berth_session="), "{set}");
    set.split(';').next().unwrap().to_owned()
}

fn browser(service: &Service, cookie: &str) -> Client {
    service.nobody().header("cookie", cookie).header("origin", ORIGIN)
}

async fn login(service: &Service, email: &str, password: &str) -> crate::support::Answer {
    service.nobody().post("/api/v1/sessions", json!({ "email": email, "password": password })).await
}

#[tokio::test]
async fn the_setup_link_works_once_and_only_the_newest() {
    let (service, _) = service_at_rest().await;
    let status = service.nobody().get("/api/v1/setup").await;
    assert_eq!(status.body, json!({ "set_up": false }));
    let old = service.api.setup_link().await.unwrap().unwrap();
    let body = |link: &str| {
        let token = link.rsplit('#').next().unwrap().to_owned();
        json!({ "token": token, "name": "Eve", "email": "eve@example.com", "password": PASSWORD })
    };
    let link = service.api.setup_link().await.unwrap().unwrap();
    service.nobody().post("/api/v1/setup", body(&old)).await.is_problem(403, "wrong_setup_token");
    let weak = json!({ "token": link.rsplit('#').next().unwrap(), "name": "Eve", "email": "eve@example.com", "password": "short" });
    service.nobody().post("/api/v1/setup", weak).await.is_problem(422, "weak_password");
    let cookie = set_up(&service).await;
    let me = browser(&service, &cookie).get("/api/v1/users/me").await;
    assert_eq!(me.text("name"), "Ada");
    assert!(service.api.setup_link().await.unwrap().is_none());
    service.nobody().post("/api/v1/setup", body(&link)).await.is_problem(409, "already_set_up");
    assert_eq!(service.nobody().get("/api/v1/setup").await.body, json!({ "set_up": true }));
    let server = browser(&service, &cookie).get("/api/v1/server").await;
    assert_eq!(server.body["pid"], std::process::id());
    assert_eq!(
        service.count("SELECT count(*) FROM api.audit WHERE action = 'setup.create' AND result = 'denied'").await,
        2
    );
}

#[tokio::test]
async fn login_and_logout() {
    let (service, _) = service_at_rest().await;
    set_up(&service).await;
    let wrong = login(&service, "ada@example.com", "another sentence of words").await;
    wrong.is_problem(401, "wrong_credentials");
    let unknown = login(&service, "grace@example.com", PASSWORD).await;
    assert_eq!(unknown.body, wrong.body, "an unknown account gets the same answer");
    let answer = login(&service, "ADA@example.com", PASSWORD).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let cookie = cookie(answer.header("set-cookie"));
    let ada = browser(&service, &cookie);
    let sessions = ada.get("/api/v1/sessions").await;
    let current: Vec<bool> =
        sessions.body["items"].as_array().unwrap().iter().map(|s| s["current"].as_bool().unwrap()).collect();
    assert_eq!(current.iter().filter(|current| **current).count(), 1);
    assert_eq!(current.len(), 2, "that of the set-up, and this one");
    let out = ada.delete("/api/v1/sessions/current").await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    ada.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_password_change_ends_other_sessions() {
    let (service, _) = service_at_rest().await;
    let first = browser(&service, &set_up(&service).await);
    let second = browser(&service, &cookie(login(&service, "ada@example.com", PASSWORD).await.header("set-cookie")));
    let path = "/api/v1/users/me/password";
    let new = "another fine sentence";
    second.put(path, json!({ "current": "wrong", "new": new })).await.is_problem(403, "wrong_password");
    second.put(path, json!({ "current": PASSWORD, "new": "short" })).await.is_problem(422, "weak_password");
    assert_eq!(second.put(path, json!({ "current": PASSWORD, "new": new })).await.status, 204);
    first.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    assert_eq!(second.get("/api/v1/users/me").await.status, 200);
    login(&service, "ada@example.com", PASSWORD).await.is_problem(401, "wrong_credentials");
    assert_eq!(login(&service, "ada@example.com", new).await.status, 201);
    service.root().put(path, json!({ "new": new })).await.is_problem(422, "no_password");
}

#[tokio::test]
async fn a_cookie_changes_nothing_from_a_foreign_page() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    let signed_in = service.browser(ada.id).await;
    assert_eq!(signed_in.post("/api/v1/tokens", json!({ "name": "x" })).await.status, 201);
    let (_, cookie) = {
        let hash = "unused";
        (hash, session_cookie(&service, &ada).await)
    };
    let with = |headers: &[(&str, &str)]| {
        let client = service.nobody().header("cookie", &cookie);
        headers.iter().fold(client, |client, (name, value)| client.header(name, value))
    };
    let body = || json!({ "name": "x" });
    assert_eq!(with(&[]).get("/api/v1/users/me").await.status, 200, "reading needs no origin");
    for evil in [
        vec![],
        vec![("origin", "null")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "https://berth.example.com.evil.test")],
        vec![("origin", "https://8080--hello.berth.example.com"), ("sec-fetch-site", "same-site")],
        vec![("sec-fetch-site", "cross-site")],
    ] {
        with(&evil).post("/api/v1/tokens", body()).await.is_problem(403, "cross_origin");
    }
    assert_eq!(with(&[("sec-fetch-site", "same-origin")]).post("/api/v1/tokens", body()).await.status, 201);
    let socket = with(&[("origin", "https://evil.example"), ("upgrade", "websocket"), ("connection", "upgrade")]);
    socket.get("/api/v1/users/me").await.is_problem(403, "cross_origin");
    // Other services ask with what they were shown, and get the same answer.
    let internal = Client::new(service.internal.clone());
    let ask = async |origin: &str| {
        let body = json!({
            "authorization": null, "cookie": cookie, "origin": origin, "unsafe_request": true, "workspace": "none", "action": "exec",
        });
        internal.post("/internal/authorize", body).await
    };
    ask("https://evil.example").await.is_problem(403, "cross_origin");
    ask(ORIGIN).await.is_problem(404, "not_found");
    with(&[("cookie", "__Host-berth_session=planted"), ("origin", ORIGIN)])
        .get("/api/v1/users/me")
        .await
        .is_problem(400, "ambiguous_cookie");
    let login = service.nobody().header("origin", "https://evil.example");
    login.post("/api/v1/sessions", json!({ "email": "a@b.c", "password": "x" })).await.is_problem(403, "cross_origin");
    let form = service.nobody().header("content-type", "text/plain");
    assert_eq!(form.send(Method::POST, "/api/v1/sessions", None).await.status, 415);
}

async fn session_cookie(service: &Service, person: &crate::support::Person) -> String {
    use sha2::Digest as _;
    let secret = "a-secret-of-this-test";
    let hash: [u8; 32] = sha2::Sha256::digest(secret.as_bytes()).into();
    let now = service.clock.now();
    sqlx::query("INSERT INTO api.sessions (id, user_id, hash, created_at, last_seen_at, expires_at) VALUES ($1, $2, $3, $4, $4, $5)")
        .bind(berth_ids::SessionId::new(service.clock.as_ref(), &berth_clock::SystemEntropy))
        .bind(person.id)
        .bind(hash.as_slice())
        .bind(now)
        .bind(now + TimeDelta::days(7))
        .execute(&service.database.pool)
        .await
        .unwrap();
    format!("__Host-berth_session={secret}")
}

#[tokio::test]
async fn sessions_end_when_idle_and_in_any_case() {
    let (service, clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let idle = service.browser(ada.id).await;
    let busy = service.browser(ada.id).await;
    for _ in 0..15 {
        clock.advance(TimeDelta::hours(11));
        assert_eq!(busy.get("/api/v1/users/me").await.status, 200);
    }
    idle.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    clock.advance(TimeDelta::hours(4));
    busy.get("/api/v1/users/me").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn logins_are_limited() {
    let config = berth_api::Config { logins_per_minute: 2, ..config() };
    let clock =
        std::sync::Arc::new(berth_clock::ManualClock::new(chrono::DateTime::UNIX_EPOCH + TimeDelta::days(20_000)));
    let service = service_with(config, clock.clone()).await;
    login(&service, "a@example.com", "x").await.is_problem(401, "wrong_credentials");
    login(&service, "b@example.com", "x").await.is_problem(401, "wrong_credentials");
    let limited = login(&service, "c@example.com", "x").await;
    limited.is_problem(429, "rate_limited");
    assert_eq!(limited.header("retry-after"), "30");
    clock.advance(TimeDelta::seconds(30));
    login(&service, "c@example.com", "x").await.is_problem(401, "wrong_credentials");
}

#[tokio::test]
async fn only_root_at_the_socket_needs_no_credentials() {
    let (service, _) = service_at_rest().await;
    let root = service.root().get("/api/v1/users/me").await;
    assert_eq!((root.status, root.text("name"), root.body["admin"].as_bool()), (200, "root".into(), Some(true)));
    service.nobody().peer(1000).get("/api/v1/users/me").await.is_problem(401, "unauthorized");
    let (a, b) = tokio::join!(async { service.root().get("/api/v1/users/me").await }, async {
        service.root().get("/api/v1/users/me").await
    });
    assert_eq!(a.text("id"), b.text("id"));
    service.root().bearer("berth_pat_x").get("/api/v1/users/me").await.is_problem(401, "unauthorized");
}
