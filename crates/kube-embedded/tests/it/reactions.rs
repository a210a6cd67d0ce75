//! What the server does by itself: garbage collection, namespaces, CRDs that come, change and go.

use std::time::Duration;

use berth_kube_embedded::ApiServer;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Asks until the answer is as wanted; fails after ten seconds.
async fn until(server: &ApiServer, path: &str, wanted: impl Fn(StatusCode, &Value) -> bool) -> Value {
    let asked = async {
        loop {
            let (status, answer) = get(server, path).await;
            if wanted(status, &answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap()
}

async fn gone(server: &ApiServer, path: &str) {
    until(server, path, |status, _| status == StatusCode::NOT_FOUND).await;
}

async fn map(server: &ApiServer, name: &str, owners: &[&Value], block: bool) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": block})
        })
        .collect();
    let body = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let (status, made) = post(server, MAPS, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

#[tokio::test]
async fn dependents_follow_their_last_owner() {
    let server = server().await;
    let (a, b) = (map(&server, "a", &[], false).await, map(&server, "b", &[], false).await);
    let both = map(&server, "both", &[&a, &b], false).await;
    map(&server, "below", &[&both], false).await;
    delete(&server, &format!("{MAPS}/a"), &json!({})).await;
    let path = format!("{MAPS}/both");
    let left =
        until(&server, &path, |_, map| map["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.len() == 1))
            .await;
    assert_eq!(left["metadata"]["ownerReferences"][0]["name"], "b");
    delete(&server, &format!("{MAPS}/b"), &json!({})).await;
    gone(&server, &path).await;
    gone(&server, &format!("{MAPS}/below")).await;
    // An owner that never was.
    let ghost = json!({"metadata": {"name": "ghost", "uid": "00000000-0000-4000-8000-000000000000"}});
    map(&server, "orphaned", &[&ghost], false).await;
    gone(&server, &format!("{MAPS}/orphaned")).await;
}

#[tokio::test]
async fn foreground_deletion_waits_and_orphans_stay() {
    let server = server().await;
    let owner = map(&server, "owner", &[], false).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["berth.dev/x"], "ownerReferences": [{"apiVersion": "v1",
        "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]}});
    post(&server, MAPS, &held).await;
    let (_, marked) = delete(&server, &format!("{MAPS}/owner"), &json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let path = format!("{MAPS}/held");
    until(&server, &path, |_, held| held["metadata"].get("deletionTimestamp").is_some()).await;
    assert_eq!(get(&server, &format!("{MAPS}/owner")).await.0, StatusCode::OK, "it waits for what it owns");
    merge(&server, &path, &json!({"metadata": {"finalizers": null}})).await;
    gone(&server, &format!("{MAPS}/owner")).await;

    let parent = map(&server, "parent", &[], false).await;
    map(&server, "child", &[&parent], true).await;
    delete(&server, &format!("{MAPS}/parent"), &json!({"propagationPolicy": "Orphan"})).await;
    gone(&server, &format!("{MAPS}/parent")).await;
    let (_, child) = get(&server, &format!("{MAPS}/child")).await;
    assert!(child["metadata"].get("ownerReferences").is_none(), "{child}");
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_empty() {
    let server = server().await;
    post(&server, "/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let inside = "/apis/berth.dev/v1/namespaces/n/workspaces";
    let mut held = workspace("held");
    held["metadata"]["finalizers"] = json!(["berth.dev/x"]);
    post(&server, inside, &held).await;
    post(&server, "/api/v1/namespaces/n/configmaps", &json!({"metadata": {"name": "m"}})).await;
    let (_, marked) = delete(&server, "/api/v1/namespaces/n", &json!({})).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    gone(&server, "/api/v1/namespaces/n/configmaps/m").await;
    let (status, refused) = post(&server, inside, &workspace("late")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    until(&server, &format!("{inside}/held"), |_, held| held["metadata"].get("deletionTimestamp").is_some()).await;
    merge(&server, &format!("{inside}/held"), &json!({"metadata": {"finalizers": []}})).await;
    gone(&server, "/api/v1/namespaces/n").await;
}

fn crd(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.test.dev"},
        "spec": {"group": "test.dev", "scope": "Cluster", "names": {"plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"]}, "versions": versions}})
}

fn version(name: &str, storage: bool, properties: &Value) -> Value {
    json!({"name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}})
}

#[tokio::test]
async fn a_crd_changes_and_goes() {
    let server = server().await;
    let first = json!({"size": {"type": "string"}});
    let (status, made) = post(&server, CRDS, &crd(json!([version("v1", true, &first)]))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let gadgets = "/apis/test.dev/v1/gadgets";
    until(&server, gadgets, |status, _| status == StatusCode::OK).await;
    let gadget =
        json!({"apiVersion": "test.dev/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"size": "small"}});
    let (_, stored) = post(&server, gadgets, &gadget).await;

    // A new default shows in old objects without a write, and a second version shows them in its own form.
    let second = json!({"size": {"type": "string"}, "colour": {"type": "string", "default": "blue"}});
    let patch = json!({"spec": {"versions": [version("v1", true, &second), version("v2", false, &json!({"colour": {"type": "string", "default": "red"}}))]}});
    merge(&server, &format!("{CRDS}/gadgets.test.dev"), &patch).await;
    let shown = until(&server, &format!("{gadgets}/g"), |_, gadget| gadget["spec"]["colour"] == "blue").await;
    assert_eq!(shown["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"]);
    let (_, other) = get(&server, "/apis/test.dev/v2/gadgets/g").await;
    assert_eq!((&other["apiVersion"], &other["spec"]), (&json!("test.dev/v2"), &json!({"colour": "blue"})));
    let (status, changed) = merge(&server, "/apis/test.dev/v2/gadgets/g", &json!({"spec": {"colour": "green"}})).await;
    assert_eq!((status, changed["spec"]["colour"].as_str()), (StatusCode::OK, Some("green")));

    let mut rival = crd(json!([version("v1", true, &first)]));
    rival["metadata"]["name"] = json!("widgets.test.dev");
    rival["spec"]["names"] = json!({"plural": "widgets", "kind": "Widget", "shortNames": ["gd"]});
    post(&server, CRDS, &rival).await;
    let refused = until(&server, &format!("{CRDS}/widgets.test.dev"), |_, crd| {
        crd["status"]["conditions"][0]["type"] == "NamesAccepted"
    })
    .await;
    assert_eq!(refused["status"]["conditions"][0]["reason"], "ShortNamesConflict");
    assert_eq!(get(&server, "/apis/test.dev/v1/widgets").await.0, StatusCode::NOT_FOUND);

    delete(&server, &format!("{CRDS}/gadgets.test.dev"), &json!({})).await;
    gone(&server, &format!("{CRDS}/gadgets.test.dev")).await;
    gone(&server, gadgets).await;
}

#[tokio::test]
async fn a_watch_that_fell_behind_is_told() {
    let server = berth_kube_embedded::Builder::new().crd(workspace_crd()).history_events(8).start().await.unwrap();
    let (_, made) = post(&server, WORKSPACES, &workspace("a")).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for step in 0..20 {
        merge(&server, &format!("{WORKSPACES}/a"), &json!({"spec": {"replicas": step + 2}})).await;
    }
    let line = first_line(&server, &format!("{WORKSPACES}?watch=1&resourceVersion={version}")).await;
    assert_eq!((line["type"].as_str(), line["object"]["reason"].as_str()), (Some("ERROR"), Some("Expired")));
    let (status, expired) =
        get(&server, &format!("{WORKSPACES}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!((status, expired["reason"].as_str()), (StatusCode::GONE, Some("Expired")));
}
