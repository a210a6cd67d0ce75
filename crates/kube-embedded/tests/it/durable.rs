//! The store in Postgres: what survives, and who is kept out.

use std::str::FromStr as _;

use berth_kube_embedded::{ApiServer, Builder, MIGRATION, StartError, Store, StoreError};
use berth_testkit::{TestDatabase, database};
use http::StatusCode;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;

use crate::support::*;

async fn migrated() -> TestDatabase {
    let database = database().await;
    sqlx::raw_sql(MIGRATION).execute(&database.pool).await.unwrap();
    database
}

async fn start(database: &TestDatabase) -> Result<ApiServer, StartError> {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    Builder::new().store(Store::Postgres(Box::new(options))).crd(workspace_crd()).start().await
}

#[tokio::test]
async fn a_restart_loses_nothing_and_gives_no_number_twice() {
    let database = migrated().await;
    let server = start(&database).await.unwrap();
    let (_, a) = post(&server, WORKSPACES, &workspace("a")).await;
    post(&server, WORKSPACES, &workspace("b")).await;
    delete(&server, &format!("{WORKSPACES}/b"), &json!({})).await;
    let last = server.resource_version();
    server.shutdown().await;

    let server = start(&database).await.unwrap();
    let (status, again) = get(&server, &format!("{WORKSPACES}/a")).await;
    assert_eq!((status, &again), (StatusCode::OK, &a));
    assert_eq!(get(&server, &format!("{WORKSPACES}/b")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.resource_version(), last, "a start with nothing to do writes nothing");
    let (_, changed) = merge(&server, &format!("{WORKSPACES}/a"), &json!({"spec": {"owner": "bob"}})).await;
    let version: u64 = changed["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(version > last);
    assert_eq!(changed["metadata"]["uid"], a["metadata"]["uid"]);
    // A watch that had seen everything resumes; an older one is told to list again.
    let line = first_line(&server, &format!("{WORKSPACES}?watch=1&resourceVersion={last}")).await;
    assert_eq!((line["type"].as_str(), &line["object"]), (Some("MODIFIED"), &changed));
    let line = first_line(&server, &format!("{WORKSPACES}?watch=1&resourceVersion={}", last - 1)).await;
    assert_eq!((line["type"].as_str(), line["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
    server.shutdown().await;
}

#[tokio::test]
async fn a_second_server_is_kept_out() {
    let database = migrated().await;
    let server = start(&database).await.unwrap();
    let refused = start(&database).await.unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::Locked)), "{refused}");
    server.shutdown().await;
    start(&database).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let database = migrated().await;
    let server = start(&database).await.unwrap();
    post(&server, WORKSPACES, &workspace("a")).await;
    for round in 0..3 {
        let ended: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'berth-kube' AND datname = current_database()",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap();
        assert_eq!(ended, 1);
        let (status, answer) =
            merge(&server, &format!("{WORKSPACES}/a"), &json!({"spec": {"replicas": round + 5}})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    server.shutdown().await;
    let stored: String = sqlx::query_scalar("SELECT body FROM kube.objects WHERE resource = 'workspaces.berth.dev'")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(stored.contains("\"replicas\":7"), "{stored}");
}

#[tokio::test]
async fn a_server_that_another_has_overtaken_writes_no_more() {
    let database = migrated().await;
    let server = start(&database).await.unwrap();
    sqlx::query("UPDATE kube.revision SET last = last + 100").execute(&database.pool).await.unwrap();
    let (status, answer) = post(&server, WORKSPACES, &workspace("a")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer["message"].as_str().unwrap().contains("another server has written"), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn concurrent_writers_lose_nothing() {
    let database = migrated().await;
    let server = std::sync::Arc::new(start(&database).await.unwrap());
    post(&server, WORKSPACES, &workspace("shared")).await;
    let mut tasks = Vec::new();
    for task in 0..8 {
        let server = server.clone();
        tasks.push(tokio::spawn(async move {
            for step in 0..20 {
                let label = json!({"metadata": {"labels": {format!("t{task}-{step}"): "x"}}});
                let (status, answer) = loop {
                    let (status, answer) = merge(&server, &format!("{WORKSPACES}/shared"), &label).await;
                    // The server tries a race again by itself, but not for ever.
                    if status != StatusCode::CONFLICT {
                        break (status, answer);
                    }
                };
                assert_eq!(status, StatusCode::OK, "{answer}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (_, shared) = get(&server, &format!("{WORKSPACES}/shared")).await;
    assert_eq!(shared["metadata"]["labels"].as_object().unwrap().len(), 160);
}
