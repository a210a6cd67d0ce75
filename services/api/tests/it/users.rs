//! Accounts and profiles.

use serde_json::json;

use crate::support::service_at_rest;

#[tokio::test]
async fn a_profile_changes_for_git_and_only_as_it_was_read() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    let me = ada.client.get("/api/v1/users/me").await;
    let change = ada.client.clone().header("if-match", me.header("etag"));
    let changed = change.patch("/api/v1/users/me", json!({ "name": "Ada L.", "git_email": "ada@Work.example" })).await;
    assert_eq!(
        (changed.status, changed.text("name"), changed.text("git_email")),
        (200, "Ada L.".into(), "ada@work.example".into())
    );
    assert_eq!(changed.text("email"), "ada@example.com");
    change.patch("/api/v1/users/me", json!({ "name": "B" })).await.is_problem(412, "changed_meanwhile");
    ada.client.patch("/api/v1/users/me", json!({ "name": " " })).await.is_problem(422, "invalid_name");
    ada.client.patch("/api/v1/users/me", json!({ "git_email": "x" })).await.is_problem(422, "invalid_email");
    ada.client.workspace(json!({})).await;
    let start = &service.ws_manager.starts()[0];
    assert_eq!((start.git_name.as_str(), start.git_email.as_str()), ("Ada L.", "ada@work.example"));
}

#[tokio::test]
async fn administrators_make_accounts() {
    let (service, _) = service_at_rest().await;
    let root = service.root();
    let body = |email: &str| json!({ "name": "Grace", "email": email, "password": "a fine sentence of words" });
    let made = root.post("/api/v1/users", body("grace@example.com")).await;
    assert_eq!((made.status, made.body["admin"].as_bool()), (201, Some(false)), "{made:?}");
    root.post("/api/v1/users", body("GRACE@example.com")).await.is_problem(409, "email_taken");
    root.post("/api/v1/users", body("grace")).await.is_problem(422, "invalid_email");
    let login = service
        .nobody()
        .post("/api/v1/sessions", json!({ "email": "grace@example.com", "password": "a fine sentence of words" }))
        .await;
    assert_eq!(login.status, 201);
    let users = root.get("/api/v1/users?limit=1").await;
    assert_eq!(users.body["items"].as_array().map(Vec::len), Some(1));
    let next = root.get(&format!("/api/v1/users?cursor={}", users.text("next_cursor"))).await;
    assert_eq!(next.body["items"].as_array().map(Vec::len), Some(1));
}
