//! The audit log.

use berth_api_types::internal::AuditEvent;
use serde_json::json;

use crate::support::{config, eventually, service, service_at_rest};

#[tokio::test]
async fn every_change_is_in_the_log_with_who_what_where_and_how_it_ended() {
    let service = service().await;
    let ada = service.person("ada").await;
    let client = ada.client.clone().header("user-agent", "test/1");
    let made = client.workspace(json!({})).await;
    let id = made.text("id");
    client.patch(&format!("/api/v1/workspaces/{id}"), json!({ "name": "other" })).await;
    client.post(&format!("/api/v1/workspaces/{id}/stop"), json!({})).await;
    client.post(&format!("/api/v1/workspaces/{id}/start"), json!({})).await;
    client.delete(&format!("/api/v1/workspaces/{id}")).await;
    client.get("/api/v1/audit").await.is_problem(403, "forbidden");
    let log = service.root().get(&format!("/api/v1/audit?target={id}")).await;
    let actions: Vec<&str> =
        log.body["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["workspace.delete", "workspace.start", "workspace.stop", "workspace.update", "workspace.create"]
    );
    let created = &log.body["items"][4];
    assert_eq!(created["actor_id"], json!(ada.id));
    assert_eq!((created["actor"].as_str(), created["result"].as_str()), (Some("ada@example.com"), Some("done")));
    assert_eq!((created["user_agent"].as_str(), created["target"].as_str()), (Some("test/1"), Some("hello")));
    assert!(created["credential"].as_str().unwrap().starts_with("token:"));
    assert_eq!(created["detail"]["class"], "small");
    let page = service.root().get("/api/v1/audit?limit=2&action=workspace.stop").await;
    assert_eq!(page.body["items"].as_array().map(Vec::len), Some(1));
    let page = service.root().get(&format!("/api/v1/audit?limit=2&actor={}", ada.id)).await;
    assert!(page.body["next_cursor"].is_string());
}

#[tokio::test]
async fn accounts_tokens_and_organizations_are_in_the_log_too() {
    let service = service().await;
    let (ada, eve) = (service.person("ada").await, service.person("eve").await);
    let browser = service.browser(ada.id).await;
    let ok = |answer: &crate::support::Answer| assert!(answer.status < 300, "{answer:?}");
    ok(&ada.client.patch("/api/v1/users/me", json!({ "name": "Ada L" })).await);
    let token = ada.client.post("/api/v1/tokens", json!({ "name": "laptop" })).await;
    ok(&ada.client.delete(&format!("/api/v1/tokens/{}", token.text("id"))).await);
    let organization = ada.client.post("/api/v1/organizations", json!({ "name": "Engines" })).await.text("id");
    let organization = format!("/api/v1/organizations/{organization}");
    ok(&ada.client.patch(&organization, json!({ "name": "Engine" })).await);
    ok(&ada.client.post(&format!("{organization}/members"), json!({ "email": eve.email, "role": "member" })).await);
    let member = format!("{organization}/members/{}", eve.id);
    ok(&ada.client.put(&member, json!({ "role": "owner" })).await);
    ok(&ada.client.delete(&member).await);
    ok(&browser.delete("/api/v1/sessions/current").await);
    let log = service.root().get(&format!("/api/v1/audit?actor={}&limit=200", ada.id)).await;
    let mut actions: Vec<&str> =
        log.body["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    actions.reverse();
    let made_with_her = actions.remove(0);
    assert_eq!(made_with_her, "token.create");
    assert_eq!(
        actions,
        [
            "user.update",
            "token.create",
            "token.revoke",
            "organization.create",
            "organization.update",
            "member.add",
            "member.update",
            "member.remove",
            "session.delete"
        ]
    );
}

#[tokio::test]
async fn the_log_cannot_be_changed_and_a_change_without_a_row_does_not_happen() {
    let service = service().await;
    let ada = service.person("ada").await;
    ada.client.workspace(json!({ "start": false })).await;
    for sql in ["UPDATE api.audit SET actor = 'nobody'", "DELETE FROM api.audit"] {
        sqlx::query(sql).execute(&service.database.pool).await.unwrap_err();
    }
    sqlx::query("ALTER TABLE api.audit ADD CONSTRAINT full_disk CHECK (action <> 'workspace.update')")
        .execute(&service.database.pool)
        .await
        .unwrap();
    ada.client.patch("/api/v1/workspaces/hello", json!({ "name": "other" })).await.is_problem(500, "internal");
    assert_eq!(ada.client.get("/api/v1/workspaces/hello").await.status, 200);
}

#[tokio::test]
async fn what_other_services_report_is_in_the_log_once_however_often_it_is_told() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let event = |action: &str| AuditEvent {
        at: service.clock.now(),
        actor_id: ada.id,
        actor: ada.email.clone(),
        credential: "local".to_owned(),
        action: action.to_owned(),
        target_type: "git_credential".to_owned(),
        target_id: Some(uuid::Uuid::from_u128(7)),
        target: "git.example.com".to_owned(),
    };
    let mut conn = service.database.pool.acquire().await.unwrap();
    berth_db::outbox::publish(&mut conn, "audit", "x", &event("git_credential.set")).await.unwrap();
    berth_db::outbox::publish(&mut conn, "audit", "x", &json!({ "nonsense": true })).await.unwrap();
    berth_db::outbox::publish(&mut conn, "audit", "x", &event("git_credential.delete")).await.unwrap();
    service.run_jobs();
    const ROWS: &str = "SELECT count(*) FROM api.audit WHERE target_type = 'git_credential'";
    eventually("both are in the log", || async { service.count(ROWS).await == 2 }).await;
    let log = service.root().get(&format!("/api/v1/audit?actor={}&action=git_credential.set", ada.id)).await;
    let row = &log.body["items"][0];
    assert_eq!(row["target_id"], "00000000-0000-0000-0000-000000000007");
    assert_eq!((row["target"].as_str(), row["credential"].as_str()), (Some("git.example.com"), Some("local")));
    assert_eq!((row["actor"].as_str(), row["result"].as_str()), (Some("ada@example.com"), Some("done")));

    // As if the offset were lost with a process: everything is told again.
    sqlx::query("UPDATE outbox.offsets SET xid = '0', id = 0 WHERE consumer = 'api'")
        .execute(&mut *conn)
        .await
        .unwrap();
    let next = service.restarted(config());
    let token = tokio_util::sync::CancellationToken::new();
    let jobs = tokio::spawn({
        let token = token.clone();
        async move { next.run_jobs(token).await }
    });
    berth_db::outbox::publish(&mut conn, "audit", "x", &event("git_credential.last")).await.unwrap();
    eventually("the last is in the log", || async { service.count(ROWS).await >= 3 }).await;
    assert_eq!(service.count(ROWS).await, 3);
    token.cancel();
    jobs.await.unwrap();
}
