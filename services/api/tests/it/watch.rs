//! Watching by server-sent events.

use serde_json::json;

use crate::support::ws_manager::Mood;
use crate::support::{config, eventually, service};

#[tokio::test]
async fn a_watch_lists_then_tells_each_change_of_ones_own() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let first = ada.client.workspace(json!({ "start": false, "name": "first" })).await;
    let (status, mut events) = ada.client.events("/api/v1/workspaces/watch").await;
    assert_eq!(status, 200);
    assert_eq!(events.next().await.unwrap()["workspace"]["id"], first.body["id"]);
    assert_eq!(events.next().await.unwrap()["type"], "synced");
    grace.client.workspace(json!({ "start": false, "name": "hers" })).await;
    ada.client.workspace(json!({ "name": "second" })).await;
    let running = events.phase("Running").await;
    assert_eq!(running["name"], "second", "and nothing of what is hers came before");
    ada.client.delete("/api/v1/workspaces/first").await;
    assert_eq!(events.until("deleted").await["id"], first.body["id"]);
    let (status, _) = ada.client.events("/api/v1/workspaces/watch?owner=all").await;
    assert_eq!(status, 403);
    let (status, _) = grace.client.events(&format!("/api/v1/workspaces/{}/watch", first.text("id"))).await;
    assert_eq!(status, 404);
    let (_, mut all) = service.root().events("/api/v1/workspaces/watch?owner=all").await;
    all.until("synced").await;
}

#[tokio::test]
async fn the_phases_of_a_start_come_in_order() {
    let service = service().await;
    let ada = service.person("ada").await;
    service.ws_manager.mood(Mood::Hangs);
    let made = ada.client.workspace(json!({})).await;
    let id = made.text("instance_id").parse().unwrap();
    let (_, mut events) = ada.client.events("/api/v1/workspaces/hello/watch").await;
    for phase in [
        berth_api_types::public::Phase::Creating,
        berth_api_types::public::Phase::Initializing,
        berth_api_types::public::Phase::Running,
    ] {
        service.ws_manager.say(id, |status| status.phase = phase);
        let name = format!("{phase:?}");
        assert_eq!(events.phase(&name).await["phase"], name);
    }
}

#[tokio::test]
async fn another_process_hears_of_changes_too() {
    let service = service().await;
    let ada = service.person("ada").await;
    let other = service.restarted(config());
    let token = tokio_util::sync::CancellationToken::new();
    tokio::spawn({
        let (other, token) = (other.clone(), token.clone());
        async move { other.run_jobs(token).await }
    });
    let elsewhere = ada.client.at(other.router());
    // Looked up there, so that it is in that process's cache.
    assert_eq!(elsewhere.get("/api/v1/users/me").await.status, 200);
    let (_, mut events) = elsewhere.events("/api/v1/workspaces/watch").await;
    events.until("synced").await;
    ada.client.workspace(json!({ "start": false })).await;
    assert_eq!(events.until("workspace").await["workspace"]["name"], "hello");
    let tokens = ada.client.get("/api/v1/tokens").await;
    let path = format!("/api/v1/tokens/{}", tokens.body["items"][0]["id"].as_str().unwrap());
    assert_eq!(ada.client.delete(&path).await.status, 204);
    eventually("the revocation is known there", || async { elsewhere.get("/api/v1/users/me").await.status == 401 })
        .await;
    token.cancel();
}

#[tokio::test]
async fn a_client_that_comes_back_is_told_everything_anew_whatever_it_says_that_it_knows() {
    let service = service().await;
    let ada = service.person("ada").await;
    for name in ["first", "second"] {
        ada.client.workspace(json!({ "start": false, "name": name })).await;
    }
    let (_, mut events) = ada.client.events("/api/v1/workspaces/watch").await;
    events.until("synced").await;
    drop(events);
    // While it was away.
    ada.client.delete("/api/v1/workspaces/first").await;
    ada.client.patch("/api/v1/workspaces/second", json!({ "name": "renamed" })).await;
    for last in ["0", "7", "18446744073709551616", "nonsense", ""] {
        let again = ada.client.clone().header("last-event-id", last);
        let (status, mut events) = again.events("/api/v1/workspaces/watch").await;
        assert_eq!(status, 200, "{last:?}");
        let first = events.next().await.unwrap();
        assert_eq!(first["workspace"]["name"], "renamed", "{last:?}: what is gone is not told");
        assert_eq!(events.next().await.unwrap()["type"], "synced", "{last:?}");
        // A browser sends no id where it was given none.
        assert!(!events.raw().contains("\nid:"), "{}", events.raw());
    }
    let (status, _) = ada.client.events("/api/v1/workspaces/first/watch").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up_and_gets_the_last_state() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({ "start": false, "name": "name-0" })).await;
    let path = format!("/api/v1/workspaces/{}", made.text("id"));
    let (_, mut slow) = ada.client.events("/api/v1/workspaces/watch").await;
    slow.until("synced").await;
    let (_, mut other) = ada.client.events("/api/v1/workspaces/watch").await;
    other.until("synced").await;
    // More than is queued for one client.
    const RENAMES: usize = 300;
    for number in 1..=RENAMES {
        let renamed = ada.client.patch(&path, json!({ "name": format!("name-{number}") })).await;
        assert_eq!(renamed.status, 200, "{renamed:?}");
    }
    let last = format!("name-{RENAMES}");
    let number = |event: &serde_json::Value| {
        event["workspace"]["name"].as_str().unwrap().strip_prefix("name-").unwrap().parse::<usize>().unwrap()
    };
    while other.until("workspace").await["workspace"]["name"] != last {}
    let (mut events, mut before) = (0, 0);
    while before < RENAMES {
        let now = number(&slow.until("workspace").await);
        assert!(now >= before, "{now} after {before}");
        (events, before) = (events + 1, now);
    }
    assert!(events < 100, "{events} events were kept for it");
    ada.client.delete(&path).await;
    assert_eq!(slow.until("deleted").await["id"], made.body["id"]);
}
