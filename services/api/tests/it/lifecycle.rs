//! Start, stop, delete, and what a process that dies in between leaves.

use berth_api_types::public::Phase;
use berth_ids::{InstanceId, WorkspaceId};
use serde_json::json;

use crate::support::ws_manager::Mood;
use crate::support::{config, eventually, service, service_at_rest};

#[tokio::test]
async fn stop_and_start_answer_when_it_is_done() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({})).await;
    let path = format!("/api/v1/workspaces/{}", made.text("id"));
    let running = ada.client.post(&format!("{path}/start"), json!({})).await;
    assert_eq!((running.status, running.text("phase")), (200, "Running".into()), "starting what runs waits for it");
    assert_eq!(running.text("instance_id"), made.text("instance_id"));
    let stopped = ada.client.post(&format!("{path}/stop"), json!({})).await;
    assert_eq!(
        (stopped.status, stopped.text("phase"), stopped.text("reason")),
        (200, "Stopped".into(), "stopped by its owner".into())
    );
    assert_eq!(ada.client.post(&format!("{path}/stop"), json!({})).await.status, 200, "stopping what is stopped");
    let again = ada.client.post(&format!("{path}/start"), json!({})).await;
    assert_eq!((again.status, again.text("phase")), (200, "Running".into()));
    assert_ne!(again.text("instance_id"), made.text("instance_id"));
    assert_eq!(again.body["receipt"]["steps"][0]["name"], "authorize");
    assert_eq!(service.ws_manager.forgotten(), [made.text("instance_id").parse::<InstanceId>().unwrap()]);
    assert_eq!(service.ws_manager.starts().len(), 2);
    let events: Vec<(String,)> =
        sqlx::query_as("SELECT payload->>'phase' FROM outbox.events WHERE topic = 'instance' ORDER BY id")
            .fetch_all(&service.database.pool)
            .await
            .unwrap();
    let phases: Vec<&str> = events.iter().map(|event| event.0.as_str()).collect();
    assert_eq!(&phases[..5], ["Pending", "Creating", "Running", "Stopping", "Stopped"]);
    let first: Vec<(bool,)> = sqlx::query_as("SELECT first_start FROM api.instances ORDER BY created_at")
        .fetch_all(&service.database.pool)
        .await
        .unwrap();
    assert_eq!(first, [(true,), (false,)]);
}

#[tokio::test]
async fn a_private_host_that_is_not_allowed_any_more_is_not_opened() {
    let service = service().await;
    let ada = service.person("ada").await;
    for (name, allowed) in [("kept", vec!["git.example.com:443"]), ("withdrawn", vec![])] {
        let url = format!("https://git.example.com/inner/{name}");
        let made = ada.client.workspace(json!({ "context_url": url, "name": name })).await;
        assert_eq!(made.status, 201, "{made:?}");
        let starts = service.ws_manager.starts();
        assert_eq!(starts.last().unwrap().allow_private_hosts, allowed, "{name}");
    }
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_the_workspace_stopped_with_the_reason() {
    let service = service().await;
    let ada = service.person("ada").await;
    service.ws_manager.mood(Mood::Refuses);
    let made = ada.client.workspace(json!({})).await;
    assert_eq!((made.status, made.text("phase")), (201, "Stopped".into()), "{made:?}");
    assert_eq!(made.text("reason"), "no machine has room for this class: try a smaller one");
    service.ws_manager.mood(Mood::Runs);
    assert_eq!(ada.client.post("/api/v1/workspaces/hello/start", json!({})).await.text("phase"), "Running");
}

#[tokio::test]
async fn a_start_and_a_stop_while_ws_manager_is_down_are_carried_on() {
    let service = service().await;
    let ada = service.person("ada").await;
    // The classes are known from before.
    ada.client.get("/api/v1/classes").await;
    service.ws_manager.mood(Mood::Down);
    let made = ada.client.workspace(json!({})).await;
    assert_eq!((made.status, made.text("phase")), (201, "Pending".into()), "{made:?}");
    let (_, mut events) = ada.client.events("/api/v1/workspaces/hello/watch").await;
    service.ws_manager.mood(Mood::Runs);
    events.phase("Running").await;
    assert_eq!(service.ws_manager.starts().len(), 1);
    service.ws_manager.mood(Mood::Down);
    let stopping = ada.client.post("/api/v1/workspaces/hello/stop?wait=false", json!({})).await;
    assert_eq!(stopping.status, 202);
    service.ws_manager.mood(Mood::Runs);
    events.phase("Stopped").await;
}

#[tokio::test]
async fn what_a_dead_process_left_is_taken_up_by_the_next() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    ada.client.get("/api/v1/classes").await;
    // No job runs, and ws-manager does not answer: as if the process died right after its commit.
    service.ws_manager.mood(Mood::Down);
    let made = ada.client.workspace(json!({})).await;
    let instance: InstanceId = made.text("instance_id").parse().unwrap();
    assert!(service.ws_manager.status(instance).is_none());
    service.ws_manager.mood(Mood::Runs);
    service.run_jobs();
    eventually("the start is carried on", || async {
        ada.client.get("/api/v1/workspaces/hello").await.text("phase") == "Running"
    })
    .await;
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_known_by_its_first_status() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    ada.client.workspace(json!({})).await;
    // As if the process died between ws-manager's yes and noting it.
    sqlx::query("UPDATE api.instances SET accepted_at = NULL").execute(&service.database.pool).await.unwrap();
    service.run_jobs();
    eventually("it is noted", || async {
        service.count("SELECT count(*) FROM api.instances WHERE accepted_at IS NOT NULL AND phase = 'Running'").await
            == 1
    })
    .await;
}

#[tokio::test]
async fn a_stop_before_ws_manager_took_the_start_ends_it() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    ada.client.get("/api/v1/classes").await;
    service.ws_manager.mood(Mood::Down);
    ada.client.workspace(json!({})).await;
    service.ws_manager.mood(Mood::Runs);
    let stopped = ada.client.post("/api/v1/workspaces/hello/stop", json!({})).await;
    assert_eq!((stopped.status, stopped.text("phase")), (200, "Stopped".into()));
    assert!(service.ws_manager.starts().is_empty());
}

#[tokio::test]
async fn start_waits_for_a_stop_that_is_under_way() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada
        .client
        .post("/api/v1/workspaces?wait=true", json!({ "context_url": "https://git.example.com/team/hello" }))
        .await;
    let id: InstanceId = made.text("instance_id").parse().unwrap();
    service.ws_manager.mood(Mood::Hangs);
    let stopping = ada.client.post("/api/v1/workspaces/hello/stop?wait=false", json!({})).await;
    assert_eq!(stopping.status, 202);
    ada.client.post("/api/v1/workspaces/hello/start?wait=false", json!({})).await.is_problem(409, "stopping");
    let client = ada.client.clone();
    let start = tokio::spawn(async move { client.post("/api/v1/workspaces/hello/start", json!({})).await });
    service.ws_manager.mood(Mood::Runs);
    service.ws_manager.say(id, |status| status.phase = Phase::Stopped);
    let started = start.await.unwrap();
    assert_eq!((started.status, started.text("phase")), (200, "Running".into()), "{started:?}");
}

#[tokio::test]
async fn two_starts_at_the_same_moment_make_one_run() {
    let service = service().await;
    let ada = service.person("ada").await;
    ada.client.workspace(json!({ "start": false })).await;
    let start = || ada.client.post("/api/v1/workspaces/hello/start", json!({}));
    let (a, b, c) = tokio::join!(start(), start(), start());
    for answer in [&a, &b, &c] {
        assert_eq!((answer.status, answer.text("phase")), (200, "Running".into()), "{answer:?}");
        assert_eq!(answer.text("instance_id"), a.text("instance_id"));
    }
    assert_eq!(service.count("SELECT count(*) FROM api.instances").await, 1);
}

#[tokio::test]
async fn delete_stops_wipes_and_frees_the_name() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({})).await;
    let id: WorkspaceId = made.text("id").parse().unwrap();
    let (_, mut events) = ada.client.events("/api/v1/workspaces/hello/watch").await;
    let deleted = ada.client.delete("/api/v1/workspaces/hello").await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    assert!(service.ws_manager.wiped(id));
    assert!(service.ws_manager.stops()[0].1.abort, "its content need not be kept");
    events.until("deleted").await;
    assert_eq!(events.next().await, None, "the stream of what is deleted ends");
    ada.client.get(&format!("/api/v1/workspaces/{id}")).await.is_problem(404, "not_found");
    assert_eq!(ada.client.workspace(json!({ "start": false })).await.text("name"), "hello");
}

#[tokio::test]
async fn a_deletion_is_carried_on_by_the_next_process() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({ "start": false })).await;
    let id: WorkspaceId = made.text("id").parse().unwrap();
    let answer = ada.client.delete("/api/v1/workspaces/hello?wait=false").await;
    assert_eq!((answer.status, answer.text("reason")), (202, "it is being deleted".into()));
    ada.client.post("/api/v1/workspaces/hello/start", json!({})).await.is_problem(409, "being_deleted");
    ada.client.patch("/api/v1/workspaces/hello", json!({ "name": "x" })).await.is_problem(409, "being_deleted");
    assert!(!service.ws_manager.wiped(id));
    const TOLD: &str = "SELECT count(*) FROM outbox.events WHERE topic = 'workspace'";
    assert_eq!(service.count(TOLD).await, 0, "others may forget it only when it is gone");
    let next = service.restarted(config());
    let token = tokio_util::sync::CancellationToken::new();
    tokio::spawn({
        let token = token.clone();
        async move { next.run_jobs(token).await }
    });
    eventually("the disk is wiped", || async { service.ws_manager.wiped(id) }).await;
    eventually("it is gone", || async { ada.client.get(&format!("/api/v1/workspaces/{id}")).await.status == 404 })
        .await;
    assert_eq!(service.count(TOLD).await, 1);
    let payload: serde_json::Value = sqlx::query_scalar("SELECT payload FROM outbox.events WHERE topic = 'workspace'")
        .fetch_one(&service.database.pool)
        .await
        .unwrap();
    assert_eq!(payload, json!({ "type": "deleted", "workspace_id": id }));
    token.cancel();
}

#[tokio::test]
async fn a_deletion_that_is_stuck_holds_up_no_other() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    let mut ids = Vec::new();
    for name in ["first", "second"] {
        let made = ada.client.workspace(json!({ "start": false, "name": name })).await;
        ids.push(made.text("id").parse::<WorkspaceId>().unwrap());
    }
    service.ws_manager.refuse_to_wipe(ids[0]);
    for id in &ids {
        assert_eq!(ada.client.delete(&format!("/api/v1/workspaces/{id}?wait=false")).await.status, 202);
    }
    service.run_jobs();
    eventually("the second is gone", || async { ada.client.get("/api/v1/workspaces/second").await.status == 404 })
        .await;
    assert_eq!(ada.client.get("/api/v1/workspaces/first").await.text("reason"), "it is being deleted");
}
