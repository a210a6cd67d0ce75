//! The rows follow ws-manager, whatever it says and in whatever order.

use berth_api_types::internal::InstanceStatus;
use berth_api_types::public::Phase;
use berth_clock::SystemClock;
use berth_ids::InstanceId;
use chrono::TimeDelta;
use serde_json::json;

use crate::support::ws_manager::Mood;
use crate::support::{Person, Service, config, eventually, service, service_at_rest, service_with};

async fn running(service: &Service, person: &Person) -> (InstanceId, InstanceStatus) {
    let body = json!({ "context_url": "https://git.example.com/team/hello" });
    let made = person.client.post("/api/v1/workspaces?wait=true", body).await;
    let id: InstanceId = made.text("instance_id").parse().unwrap();
    (id, service.ws_manager.status(id).unwrap())
}

#[tokio::test]
async fn a_late_word_changes_nothing() {
    let service = service().await;
    let ada = service.person("ada").await;
    let (id, status) = running(&service, &ada).await;
    let late = InstanceStatus { version: status.version - 1, phase: Phase::Creating, ..status.clone() };
    service.ws_manager.whisper(late);
    service.ws_manager.say(id, |status| status.timeout_warning = Some("stops in 5 minutes".into()));
    eventually("the newer word is there", || async {
        ada.client.get("/api/v1/workspaces/hello").await.body["timeout_warning"].is_string()
    })
    .await;
    assert_eq!(ada.client.get("/api/v1/workspaces/hello").await.text("phase"), "Running");
}

#[tokio::test]
async fn what_is_over_stays_over_and_is_stopped_where_it_still_runs() {
    let service = service().await;
    let ada = service.person("ada").await;
    let (id, status) = running(&service, &ada).await;
    ada.client.post("/api/v1/workspaces/hello/stop", json!({})).await;
    let stops = service.ws_manager.stops().len();
    service.ws_manager.whisper(InstanceStatus { version: status.version + 100, ..status });
    eventually("it is told to stop", || async { service.ws_manager.stops().len() > stops }).await;
    assert_eq!(service.ws_manager.stops().last().unwrap().0, id);
    assert_eq!(ada.client.get("/api/v1/workspaces/hello").await.text("phase"), "Stopped");
}

#[tokio::test]
async fn a_run_whose_record_vanished_is_over_and_says_so() {
    let service = service().await;
    let ada = service.person("ada").await;
    let (id, _) = running(&service, &ada).await;
    service.ws_manager.lose(id);
    let (_, mut events) = ada.client.events("/api/v1/workspaces/hello/watch").await;
    let stopped = events.phase("Stopped").await;
    assert!(stopped["reason"].as_str().unwrap().starts_with("the instance was lost"), "{stopped}");
    assert!(stopped["stopped_at"].is_string(), "the billable interval is closed");
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_found_at_the_next_list() {
    let (service, clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    service.ws_manager.mood(Mood::Hangs);
    let made = ada.client.workspace(json!({})).await;
    service.ws_manager.lose_silently(made.text("instance_id").parse().unwrap());
    clock.advance(TimeDelta::seconds(60));
    service.run_jobs();
    eventually("it is over", || async { ada.client.get("/api/v1/workspaces/hello").await.text("phase") == "Stopped" })
        .await;
}

#[tokio::test]
async fn a_missed_word_is_found_by_the_periodic_comparison() {
    let config = berth_api::Config { reconcile_seconds: 1, ..config() };
    let service = service_with(config, SystemClock::shared()).await;
    service.run_jobs();
    let ada = service.person("ada").await;
    let (id, _) = running(&service, &ada).await;
    service.ws_manager.lose_silently(id);
    // Older than what may still be missing in a list.
    sqlx::query("UPDATE api.instances SET accepted_at = accepted_at - interval '1 minute'")
        .execute(&service.database.pool)
        .await
        .unwrap();
    eventually("it is over", || async { ada.client.get("/api/v1/workspaces/hello").await.text("phase") == "Stopped" })
        .await;
}

#[tokio::test]
async fn the_last_word_is_acknowledged_after_a_restart_too() {
    let (service, _clock) = service_at_rest().await;
    let ada = service.person("ada").await;
    service.ws_manager.mood(Mood::Hangs);
    let made = ada.client.workspace(json!({})).await;
    let id: InstanceId = made.text("instance_id").parse().unwrap();
    service.ws_manager.say(id, |status| {
        status.phase = Phase::Stopped;
        status.failed = true;
        status.reason = "the image does not exist".into();
    });
    service.run_jobs();
    eventually("it is acknowledged", || async { service.ws_manager.forgotten() == [id] }).await;
    eventually("the row says so", || async {
        service.count("SELECT count(*) FROM api.instances WHERE acknowledged_at IS NOT NULL").await == 1
    })
    .await;
    assert_eq!(ada.client.get("/api/v1/workspaces/hello").await.text("reason"), "the image does not exist");
}

#[tokio::test]
async fn a_start_that_comes_late_to_a_deleted_workspace_leaves_no_disk() {
    let service = service().await;
    let ada = service.person("ada").await;
    let (id, status) = running(&service, &ada).await;
    ada.client.delete("/api/v1/workspaces/hello").await;
    let stops = service.ws_manager.stops().len();
    service.ws_manager.forget_wiping();
    service.ws_manager.whisper(InstanceStatus { version: status.version + 100, ..status.clone() });
    eventually("it is told to stop", || async { service.ws_manager.stops().len() > stops }).await;
    assert!(service.ws_manager.stops().last().unwrap().1.abort);
    service.ws_manager.whisper(InstanceStatus {
        version: status.version + 101,
        phase: Phase::Stopped,
        ..status.clone()
    });
    eventually("the disk is wiped again", || async { service.ws_manager.wiped(status.workspace_id) }).await;
    assert!(service.ws_manager.forgotten().contains(&id));
}
