//! The store in Postgres: what survives, and who is kept out.

use std::str::FromStr as _;
use std::time::Duration;

use axum::body::Body;
use berth_kube_embedded::{ApiServer, Builder, MIGRATION, StartError, Store, StoreError};
use berth_testkit::{TestDatabase, database};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use tower::ServiceExt as _;

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

/// Every line of a watch until it ends.
async fn lines_to_the_end(body: &mut Body) -> Vec<Value> {
    let mut text = Vec::new();
    let whole = async {
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), whole).await;
    assert!(ended.is_ok(), "an open watch does not end with its server");
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect()
}

async fn watch(server: &ApiServer, since: &str) -> Body {
    let path = format!("{WORKSPACES}?watch=1&resourceVersion={since}");
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    server.router().oneshot(request).await.unwrap().into_body()
}

#[tokio::test]
async fn a_watch_that_is_open_at_a_restart_is_resumed_without_a_gap() {
    let database = migrated().await;
    let server = start(&database).await.unwrap();
    let mut open = watch(&server, &server.resource_version().to_string()).await;
    let mut idle = watch(&server, &server.resource_version().to_string()).await;
    for name in ["a", "b"] {
        post(&server, WORKSPACES, &workspace(name)).await;
    }
    let first = open.frame().await.unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"{\"type\":\"ADDED\""));
    server.shutdown().await;

    // It ends in good order, with everything that happened; so does one that was not read at all.
    lines_to_the_end(&mut open).await;
    let seen = lines_to_the_end(&mut idle).await;
    let names: Vec<&str> = seen.iter().filter_map(|line| line["object"]["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["a", "b"], "{seen:?}");
    let last = seen[1]["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let server = start(&database).await.unwrap();
    post(&server, WORKSPACES, &workspace("c")).await;
    let mut again = watch(&server, &last).await;
    server.shutdown().await;
    let seen = lines_to_the_end(&mut again).await;
    let names: Vec<&str> = seen.iter().filter_map(|line| line["object"]["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["c"], "nothing twice, nothing left out: {seen:?}");
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
