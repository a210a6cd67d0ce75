//! Organizations, their members, and what they pay for.

use serde_json::json;

use crate::support::{service, service_at_rest};

#[tokio::test]
async fn an_organization_has_an_owner_at_all_times() {
    let (service, _) = service_at_rest().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let made = ada.client.post("/api/v1/organizations", json!({ "name": "Team" })).await;
    assert_eq!((made.status, made.text("role")), (201, "owner".into()), "{made:?}");
    let path = format!("/api/v1/organizations/{}", made.text("id"));
    grace.client.get(&path).await.is_problem(404, "not_found");
    let members = format!("{path}/members");
    let added = ada.client.post(&members, json!({ "email": "GRACE@example.com", "role": "member" })).await;
    assert_eq!((added.status, added.text("role")), (201, "member".into()), "{added:?}");
    assert_eq!(grace.client.get(&path).await.text("role"), "member", "the right is there at once");
    ada.client
        .post(&members, json!({ "email": "grace@example.com", "role": "member" }))
        .await
        .is_problem(409, "already_member");
    ada.client
        .post(&members, json!({ "email": "nobody@example.com", "role": "member" }))
        .await
        .is_problem(422, "unknown_user");
    grace
        .client
        .post(&members, json!({ "email": "x@example.com", "role": "member" }))
        .await
        .is_problem(403, "forbidden");
    grace.client.patch(&path, json!({ "name": "Mine" })).await.is_problem(403, "forbidden");

    ada.client.delete(&format!("{members}/me")).await.is_problem(409, "last_owner");
    let her = format!("{members}/{}", grace.id);
    ada.client.put(&format!("{members}/{}", ada.id), json!({ "role": "member" })).await.is_problem(409, "last_owner");
    assert_eq!(ada.client.put(&her, json!({ "role": "owner" })).await.status, 200);
    assert_eq!(ada.client.delete(&format!("{members}/me")).await.status, 204);
    ada.client.get(&path).await.is_problem(404, "not_found");
    let renamed = grace.client.patch(&path, json!({ "name": "Mine" })).await;
    assert_eq!((renamed.status, renamed.text("name")), (200, "Mine".into()));
    let stale = grace.client.clone().header("if-match", "\"1.0\"");
    stale.patch(&path, json!({ "name": "Other" })).await.is_problem(412, "changed_meanwhile");
    let listed = grace.client.get("/api/v1/organizations").await;
    let names: Vec<bool> =
        listed.body["items"].as_array().unwrap().iter().map(|item| item["personal"].as_bool().unwrap()).collect();
    assert_eq!(names.iter().filter(|personal| **personal).count(), 1);
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn of_two_owners_who_leave_at_once_one_stays() {
    let (service, _) = service_at_rest().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let made = ada.client.post("/api/v1/organizations", json!({ "name": "Team" })).await;
    let members = format!("/api/v1/organizations/{}/members", made.text("id"));
    ada.client.post(&members, json!({ "email": "grace@example.com", "role": "owner" })).await;
    let path = format!("{members}/me");
    let (a, b) = tokio::join!(ada.client.delete(&path), grace.client.delete(&path));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
}

#[tokio::test]
async fn a_personal_organization_has_one_member_for_ever() {
    let (service, _) = service_at_rest().await;
    let ada = service.person("ada").await;
    service.person("grace").await;
    let members = format!("/api/v1/organizations/{}/members", ada.organization);
    ada.client
        .post(&members, json!({ "email": "grace@example.com", "role": "member" }))
        .await
        .is_problem(403, "forbidden");
    ada.client.delete(&format!("{members}/me")).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn owners_see_and_stop_what_their_organization_pays_for() {
    let service = service().await;
    let (ada, grace, eve) = (service.person("ada").await, service.person("grace").await, service.person("eve").await);
    let made = ada.client.post("/api/v1/organizations", json!({ "name": "Team" })).await;
    let organization = made.text("id");
    let members = format!("/api/v1/organizations/{organization}/members");
    for email in ["grace@example.com", "eve@example.com"] {
        ada.client.post(&members, json!({ "email": email, "role": "member" })).await;
    }
    let hers = grace.client.workspace(json!({ "organization_id": organization })).await;
    assert_eq!(hers.status, 201, "{hers:?}");
    let path = format!("/api/v1/workspaces/{}", hers.text("id"));
    assert_eq!(ada.client.get(&path).await.status, 200);
    eve.client.get(&path).await.is_problem(404, "not_found");
    let all = ada.client.get(&format!("/api/v1/workspaces?organization={organization}")).await;
    assert_eq!(all.body["items"].as_array().map(Vec::len), Some(1));
    eve.client.get(&format!("/api/v1/workspaces?organization={organization}")).await.is_problem(403, "forbidden");
    // Their own there; not what somebody else pays for, nor what another owns.
    grace.client.workspace(json!({ "start": false })).await;
    let own = format!("/api/v1/workspaces?owner=me&organization={organization}");
    for (who, filter, count) in
        [(&grace, "", 1), (&grace, "&name=hello", 1), (&grace, "&class=large", 0), (&eve, "", 0), (&ada, "", 0)]
    {
        let listed = who.client.get(&format!("{own}{filter}")).await;
        assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(count), "{filter} {listed:?}");
    }
    service.person("mallory").await.client.get(&own).await.is_problem(404, "not_found");
    let everybodys = format!("/api/v1/workspaces?owner=all&organization={organization}");
    assert_eq!(ada.client.get(&everybodys).await.body["items"].as_array().map(Vec::len), Some(1));
    eve.client.get(&everybodys).await.is_problem(403, "forbidden");
    let stopped = ada.client.post(&format!("{path}/stop"), json!({})).await;
    assert_eq!((stopped.status, stopped.text("reason")), (200, "stopped by ada".into()));
    ada.client.post(&format!("{path}/start"), json!({})).await.is_problem(403, "forbidden");

    assert_eq!(ada.client.delete(&format!("{members}/{}", grace.id)).await.status, 204);
    grace.client.post(&format!("{path}/start"), json!({})).await.is_problem(403, "forbidden");
    assert_eq!(grace.client.get(&path).await.status, 200, "it stays hers");
    grace.client.workspace(json!({ "organization_id": organization })).await.is_problem(404, "not_found");
}
