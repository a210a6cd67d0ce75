//! The audit log.

use serde_json::json;

use crate::support::service;

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
