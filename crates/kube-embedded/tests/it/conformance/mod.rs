//! The same requests and the same expectations for this server and for a real kube-apiserver.
//!
//! The real one is named by `BERTH_TEST_KUBECONFIG`; without it only this server is asked.

mod objects;

use std::time::Duration;

use http::{Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::support::workspace_crd;

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const PLAIN: &str = "application/json";

/// A server under test, with a namespace of its own.
struct Subject {
    client: Client,
    namespace: String,
    collection: String,
    failures: Vec<String>,
}

impl Subject {
    async fn send(&self, method: &str, path: &str, media: &str, body: &Value) -> (u16, Value) {
        let bytes = match body {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, media)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "tester/1")
            .body(Body::from(bytes))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn expect(&mut self, what: &str, found: &Value, wanted: &Value) {
        if found != wanted {
            self.failures.push(format!("{what}: found {found}, wanted {wanted}"));
        }
    }

    /// Sends, and expects a status and members of the answer by JSON pointer.
    async fn case(&mut self, method: &str, path: &str, media: &str, body: Value, status: u16, wanted: Value) -> Value {
        let (found, answer) = self.send(method, path, media, &body).await;
        let what = format!("{method} {path} {body}");
        self.expect(&format!("{what}: status of {answer}"), &json!(found), &json!(status));
        for (pointer, value) in wanted.as_object().into_iter().flatten() {
            let member = answer.pointer(pointer).cloned().unwrap_or(Value::Null);
            self.expect(&format!("{what}: {pointer}"), &member, value);
        }
        answer
    }

    async fn get(&mut self, path: &str, status: u16, wanted: Value) -> Value {
        self.case("GET", path, PLAIN, Value::Null, status, wanted).await
    }

    async fn post(&mut self, path: &str, body: Value, status: u16, wanted: Value) -> Value {
        self.case("POST", path, PLAIN, body, status, wanted).await
    }

    fn object(&self, name: &str) -> Value {
        json!({"apiVersion": "berth.dev/v1", "kind": "Workspace", "metadata": {"name": name}, "spec": {"owner": "ann"}})
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection)
    }
}

async fn subjects() -> Vec<(&'static str, Subject)> {
    let server = Box::leak(Box::new(crate::support::server().await));
    let mut clients = vec![("this server", Client::new(server.router(), "default"))];
    match std::env::var("BERTH_TEST_KUBECONFIG") {
        Ok(path) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let kubeconfig = Kubeconfig::read_from(path).unwrap();
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            // A 504 is expected here, not to be tried again.
            config.default_retry = false;
            clients.push(("kube-apiserver", Client::try_from(config).unwrap()));
        }
        Err(_) => println!("skipped: the real kube-apiserver, because BERTH_TEST_KUBECONFIG names none"),
    }
    let mut subjects = Vec::new();
    for (name, client) in clients {
        let namespace = format!("conformance-{}", std::process::id());
        let mut subject = Subject {
            client,
            collection: format!("/apis/berth.dev/v1/namespaces/{namespace}/workspaces"),
            namespace: namespace.clone(),
            failures: Vec::new(),
        };
        let crd = serde_json::to_value(workspace_crd()).unwrap();
        subject.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", PLAIN, &crd).await;
        let mut crd = crd;
        crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
        crd["kind"] = json!("CustomResourceDefinition");
        // Established is not served yet: ask until it is.
        tokio::time::timeout(Duration::from_secs(30), async {
            while subject.send("GET", &subject.collection, PLAIN, &Value::Null).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap();
        subject
            .post(
                "/api/v1/namespaces",
                json!({"metadata": {"name": namespace}}),
                201,
                json!({
                    "/status/phase": "Active", "/spec/finalizers/0": "kubernetes",
                    "/metadata/managedFields/0/fieldsV1":
                        {"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}},
                }),
            )
            .await;
        subjects.push((name, subject));
    }
    subjects
}

async fn finish(name: &str, subject: Subject) {
    let path = format!("/api/v1/namespaces/{}", subject.namespace);
    subject.send("DELETE", &subject.collection, PLAIN, &json!({})).await;
    subject.send("DELETE", &path, PLAIN, &json!({})).await;
    assert!(subject.failures.is_empty(), "{name}:\n{}", subject.failures.join("\n"));
}

#[tokio::test]
async fn requests_are_answered_alike() {
    for (name, mut subject) in subjects().await {
        objects::creates(&mut subject).await;
        objects::updates(&mut subject).await;
        objects::applies(&mut subject).await;
        lists(&mut subject).await;
        builtins(&mut subject).await;
        deletions(&mut subject).await;
        watches(&mut subject).await;
        finish(name, subject).await;
    }
}

async fn lists(subject: &mut Subject) {
    let all = subject.collection.clone();
    let first = subject
        .get(&format!("{all}?limit=1"), 200, json!({"/kind": "WorkspaceList", "/metadata/remainingItemCount": 3}))
        .await;
    let token = first["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    subject.case("PATCH", &subject.path("bogus"), MERGE, json!({"spec": {"owner": "later"}}), 200, json!({})).await;
    subject
        .get(&format!("{all}?limit=9&continue={token}"), 200, json!({
            "/items/1/spec/owner": "ann", "/metadata/resourceVersion": first["metadata"]["resourceVersion"], "/metadata/continue": "",
        }))
        .await;
    subject
        .get(
            &format!("{all}?continue={token}&resourceVersion=1"),
            400,
            json!({"/message": "specifying resource version is not allowed when using continue"}),
        )
        .await;
    subject
        .get(
            &format!("{all}?fieldSelector=spec.owner%3Dlater"),
            200,
            json!({"/items/0/metadata/name": "bogus", "/items/1": null}),
        )
        .await;
    subject
        .get(
            &format!("{all}?fieldSelector=spec.image%3Dx"),
            400,
            json!({"/message": "field label not supported: spec.image"}),
        )
        .await;
    subject
        .get(
            &format!("{all}?labelSelector=l%20in%20(1,2),!none"),
            200,
            json!({"/items/0/metadata/name": "a", "/items/1": null}),
        )
        .await;
    subject.get(&format!("{all}?resourceVersionMatch=Exact"), 422, json!({"/details/kind": "ListOptions"})).await;
    subject.get(&format!("{all}?limit=x"), 400, json!({"/reason": "BadRequest"})).await;
    subject
        .get(
            &format!("{all}?resourceVersion=99999999"),
            504,
            json!({"/details/causes/0/reason": "ResourceVersionTooLarge"}),
        )
        .await;
}

async fn builtins(subject: &mut Subject) {
    let namespace = format!("/api/v1/namespaces/{}", subject.namespace);
    let maps = format!("{namespace}/configmaps");
    subject
        .post(
            &maps,
            json!({"metadata": {"name": "m"}, "data": {"a": "b"}}),
            201,
            json!({"/kind": "ConfigMap", "/metadata/generation": null}),
        )
        .await;
    subject
        .case(
            "PATCH",
            &format!("{maps}/m"),
            STRATEGIC,
            json!({"data": {"c": "d", "a": null}}),
            200,
            json!({"/data": {"c": "d"}}),
        )
        .await;
    subject
        .case(
            "PUT",
            &format!("{maps}/m"),
            PLAIN,
            json!({"metadata": {"name": "m"}, "data": {"e": "f"}}),
            200,
            json!({"/data": {"e": "f"}}),
        )
        .await;
    let secrets = format!("{namespace}/secrets");
    subject
        .post(
            &secrets,
            json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}),
            201,
            json!({"/type": "Opaque", "/data": {"a": "Yg=="}}),
        )
        .await;
    subject.post(&secrets, json!({"metadata": {"name": "t"}, "data": {"a": "!"}}), 400, json!({"/message": "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"})).await;
    let pods = format!("{namespace}/pods");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    subject
        .post(
            &pods,
            pod,
            201,
            json!({
                "/status/phase": "Pending", "/status/qosClass": "BestEffort", "/spec/restartPolicy": "Always",
                "/spec/containers/0/imagePullPolicy": "Always", "/spec/dnsPolicy": "ClusterFirst",
            }),
        )
        .await;
    subject
        .case(
            "PATCH",
            &format!("{pods}/p"),
            STRATEGIC,
            json!({"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}),
            200,
            json!({"/spec/containers/0/image": "nginx:2", "/spec/containers/1": null}),
        )
        .await;
    subject
        .case(
            "PATCH",
            &format!("{pods}/p"),
            STRATEGIC,
            json!({"spec": {"nodeName": "x"}}),
            422,
            json!({"/details/causes/0/reason": "FieldValueForbidden"}),
        )
        .await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    subject.post(&format!("{pods}/p/binding"), binding, 201, json!({"/status": "Success"})).await;
    subject
        .get(
            &format!("{pods}?fieldSelector=spec.nodeName%3Dn"),
            200,
            json!({"/items/0/metadata/name": "p", "/items/0/kind": null}),
        )
        .await;
    subject
        .case(
            "DELETE",
            &format!("{pods}/p"),
            PLAIN,
            json!({}),
            200,
            json!({"/metadata/deletionGracePeriodSeconds": 30}),
        )
        .await;
    subject
        .case("DELETE", &format!("{pods}/p"), PLAIN, json!({"gracePeriodSeconds": 0}), 200, json!({"/kind": "Pod"}))
        .await;
    subject
        .get(
            &format!("{pods}/p"),
            404,
            json!({"/message": "pods \"p\" not found", "/details": {"name": "p", "kind": "pods"}}),
        )
        .await;
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", subject.namespace);
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-11-23T10:00:00.000000Z"}});
    subject.case("PUT", &format!("{leases}/l"), PLAIN, lease.clone(), 201, json!({"/spec/holderIdentity": "a"})).await;
    subject
        .case(
            "PUT",
            &format!("{leases}/l"),
            PLAIN,
            lease,
            422,
            json!({"/details/causes/0/field": "metadata.resourceVersion"}),
        )
        .await;
    subject
        .post(
            &leases,
            json!({"metadata": {"name": "k"}, "spec": {"renewTime": "2026-11-23T10:00:00Z"}}),
            400,
            json!({"/reason": "BadRequest"}),
        )
        .await;
    let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", subject.namespace);
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-11-23T10:00:00.000000Z", "reportingController": "k.dev/c", "reportingInstance": "i",
        "action": "Go", "reason": "Because", "type": "Normal", "note": "hello", "regarding": {"kind": "Pod", "name": "p", "namespace": subject.namespace}});
    subject.post(&events, event, 201, json!({"/note": "hello"})).await;
    subject
        .get(
            &format!("{namespace}/events/e"),
            200,
            json!({"/message": "hello", "/involvedObject/name": "p", "/reportingComponent": "k.dev/c"}),
        )
        .await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    subject
        .post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, 201, json!({"/status/allowed": true}))
        .await;
}

async fn deletions(subject: &mut Subject) {
    let path = subject.path("a");
    subject
        .case(
            "DELETE",
            &path,
            PLAIN,
            json!({"propagationPolicy": "Bogus"}),
            422,
            json!({"/details/kind": "DeleteOptions"}),
        )
        .await;
    subject
        .case("DELETE", &path, PLAIN, json!({"preconditions": {"uid": "x"}}), 409, json!({"/reason": "Conflict"}))
        .await;
    subject.case("PATCH", &path, MERGE, json!({"metadata": {"finalizers": ["berth.dev/x"]}}), 200, json!({})).await;
    let marked = subject
        .case(
            "DELETE",
            &path,
            PLAIN,
            json!({}),
            200,
            json!({"/kind": "Workspace", "/metadata/deletionGracePeriodSeconds": 0, "/metadata/generation": 4}),
        )
        .await;
    subject
        .case(
            "DELETE",
            &path,
            PLAIN,
            json!({}),
            200,
            json!({"/metadata/resourceVersion": marked["metadata"]["resourceVersion"]}),
        )
        .await;
    subject
        .case(
            "PATCH",
            &path,
            MERGE,
            json!({"metadata": {"finalizers": ["berth.dev/x", "berth.dev/y"]}}),
            422,
            json!({"/details/causes/0/reason": "FieldValueForbidden"}),
        )
        .await;
    let again = subject.object("a");
    subject
        .post(
            &subject.collection.clone(),
            again,
            409,
            json!({"/message": "object is being deleted: workspaces.berth.dev \"a\" already exists"}),
        )
        .await;
    subject
        .case(
            "PATCH",
            &path,
            MERGE,
            json!({"metadata": {"finalizers": null}}),
            200,
            json!({"/metadata/finalizers": null}),
        )
        .await;
    subject.get(&path, 404, json!({"/reason": "NotFound"})).await;
    subject
        .case(
            "DELETE",
            &subject.path("bogus"),
            PLAIN,
            Value::Null,
            200,
            json!({"/kind": "Status", "/status": "Success", "/details/kind": "workspaces"}),
        )
        .await;
}

/// The types and the names of a watch's events until it ends.
async fn watched(subject: &Subject, query: &str) -> Vec<(String, String)> {
    let path = format!("{}?watch=1&timeoutSeconds=1&{query}", subject.collection);
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = subject.client.send(request).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or_default();
            (event["type"].as_str().unwrap_or_default().to_owned(), name.to_owned())
        })
        .collect()
}

async fn watches(subject: &mut Subject) {
    let path = subject.path("w");
    let made = subject.post(&subject.collection.clone(), subject.object("w"), 201, json!({})).await;
    let start = made["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    for label in ["blue", "red"] {
        subject.case("PATCH", &path, MERGE, json!({"metadata": {"labels": {"colour": label}}}), 200, json!({})).await;
    }
    subject.case("DELETE", &path, PLAIN, json!({}), 200, json!({})).await;
    let pairs = |list: &[&str]| json!(list.iter().map(|kind| (*kind, "w")).collect::<Vec<_>>());
    let plain = watched(subject, &format!("resourceVersion={start}")).await;
    subject.expect("a watch", &json!(plain), &pairs(&["MODIFIED", "MODIFIED", "DELETED"]));
    let blue = watched(subject, &format!("resourceVersion={start}&labelSelector=colour%3Dblue")).await;
    subject.expect("a watch with a selector", &json!(blue), &pairs(&["ADDED", "DELETED"]));
    let initial = watched(subject, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Dapplied").await;
    subject.expect("a streaming list", &json!(initial[..2]), &json!([["ADDED", "applied"], ["BOOKMARK", ""]]));
}
