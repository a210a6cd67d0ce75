//! The API conventions, request by request.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn create_fills_in_what_the_server_owns() {
    let server = server().await;
    let (status, object) = post(&server, WORKSPACES, &workspace("a")).await;
    assert_eq!(status, StatusCode::CREATED, "{object}");
    let metadata = &object["metadata"];
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_eq!(object["spec"]["replicas"], 1, "defaulted");
    assert_eq!(metadata["managedFields"][0]["manager"], "unknown");
    let (status, answer) = post(&server, WORKSPACES, &workspace("a")).await;
    assert_eq!((status, answer["reason"].as_str()), (StatusCode::CONFLICT, Some("AlreadyExists")));
    let (status, answer) = post(&server, "/apis/berth.dev/v1/namespaces/none/workspaces", &workspace("a")).await;
    assert_eq!((status, answer["message"].as_str()), (StatusCode::NOT_FOUND, Some("namespaces \"none\" not found")));
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = server().await;
    let path = format!("{WORKSPACES}/a");
    let mut object = workspace("a");
    object["status"] = json!({"phase": "Running"});
    let (_, made) = post(&server, WORKSPACES, &object).await;
    assert!(made.get("status").is_none(), "status is dropped on create");
    let (status, patched) =
        merge(&server, &format!("{path}/status"), &json!({"status": {"phase": "Running"}, "spec": {"owner": "bob"}}))
            .await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!(
        (patched["status"]["phase"].as_str(), patched["spec"]["owner"].as_str()),
        (Some("Running"), Some("ann"))
    );
    assert_eq!(patched["metadata"]["generation"], 1);
    let (_, patched) = merge(&server, &path, &json!({"status": {"phase": "Stopped"}, "spec": {"owner": "bob"}})).await;
    assert_eq!(
        (patched["status"]["phase"].as_str(), patched["spec"]["owner"].as_str()),
        (Some("Running"), Some("bob"))
    );
    assert_eq!(patched["metadata"]["generation"], 2);
    let before = patched["metadata"]["resourceVersion"].clone();
    let (_, same) = merge(&server, &path, &json!({"spec": {"owner": "bob"}})).await;
    assert_eq!(same["metadata"]["resourceVersion"], before, "a write that changes nothing is none");
}

#[tokio::test]
async fn conflicts_are_told_apart() {
    let server = server().await;
    let (_, made) = post(&server, WORKSPACES, &workspace("a")).await;
    let path = format!("{WORKSPACES}/a");
    merge(&server, &path, &json!({"spec": {"owner": "bob"}})).await;
    let (status, answer) = put(&server, &path, &made).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        answer["message"].as_str().unwrap().starts_with("Operation cannot be fulfilled on workspaces.berth.dev \"a\"")
    );
    let (status, answer) = put(&server, &path, &workspace("a")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["details"]["causes"][0]["field"], "metadata.resourceVersion");
}

#[tokio::test]
async fn apply_tracks_owners() {
    let server = server().await;
    let path = format!("{WORKSPACES}/a");
    let config = |image: Option<&str>| {
        let mut object = workspace("a");
        if let Some(image) = image {
            object["spec"]["image"] = json!(image);
        }
        object
    };
    let (status, made) = apply(&server, &path, "one", &config(Some("x"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{"manager": "one", "operation": "Apply", "apiVersion": "berth.dev/v1", "fieldsType": "FieldsV1",
            "time": made["metadata"]["managedFields"][0]["time"],
            "fieldsV1": {"f:spec": {"f:image": {}, "f:owner": {}}}}])
    );
    let (_, again) = apply(&server, &path, "one", &config(Some("x"))).await;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (status, conflict) = apply(&server, &path, "two", &config(Some("y"))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.image");
    let (status, forced) = apply(&server, &path, "two&force=true", &config(Some("y"))).await;
    assert_eq!((status, forced["spec"]["image"].as_str()), (StatusCode::OK, Some("y")));
    // "one" lost the image; leaving it out now removes nothing.
    let (_, kept) = apply(&server, &path, "one", &config(None)).await;
    assert_eq!(kept["spec"]["image"], "y");
    let (_, removed) = apply(&server, &path, "two", &config(None)).await;
    assert!(removed["spec"].get("image").is_none(), "{removed}");
    let mut bogus = config(None);
    bogus["spec"]["bogus"] = json!(1);
    let (status, answer) = apply(&server, &path, "one", &bogus).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["message"].as_str().unwrap().ends_with(".spec.bogus: field not declared in schema"), "{answer}");
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = server().await;
    let path = format!("{WORKSPACES}/a");
    let mut object = workspace("a");
    object["metadata"]["finalizers"] = json!(["berth.dev/x"]);
    post(&server, WORKSPACES, &object).await;
    let (status, marked) = delete(&server, &path, &json!({})).await;
    assert_eq!((status, marked["metadata"]["generation"].as_i64()), (StatusCode::OK, Some(2)));
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let (status, answer) =
        merge(&server, &path, &json!({"metadata": {"finalizers": ["berth.dev/x", "berth.dev/y"]}})).await;
    assert_eq!(
        (status, answer["details"]["causes"][0]["reason"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("FieldValueForbidden"))
    );
    let (status, _) = merge(&server, &path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
    post(&server, WORKSPACES, &workspace("b")).await;
    let (status, gone) = delete(&server, &format!("{WORKSPACES}/b"), &Value::Null).await;
    assert_eq!(
        (status, gone["status"].as_str(), gone["details"]["kind"].as_str()),
        (StatusCode::OK, Some("Success"), Some("workspaces"))
    );
}

#[tokio::test]
async fn pages_are_consistent() {
    let server = server().await;
    for name in ["a", "b", "c", "d", "e"] {
        post(&server, WORKSPACES, &workspace(name)).await;
    }
    let (_, first) = get(&server, &format!("{WORKSPACES}?limit=2")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    delete(&server, &format!("{WORKSPACES}/d"), &Value::Null).await;
    post(&server, WORKSPACES, &workspace("cc")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&server, &format!("{WORKSPACES}?limit=9&continue={token}")).await;
    let names: Vec<&str> =
        rest["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "d", "e"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, selected) = get(&server, &format!("{WORKSPACES}?fieldSelector=spec.owner%3Dann,metadata.name%3Dcc")).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let (status, _) = get(&server, &format!("{WORKSPACES}?fieldSelector=spec.image%3Dx")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
