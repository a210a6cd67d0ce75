//! Creates, updates and applies of a custom resource.

use serde_json::json;

use super::{APPLY, JSON, MERGE, PLAIN, STRATEGIC, Subject};

pub(super) async fn creates(subject: &mut Subject) {
    let all = subject.collection.clone();
    let a = subject.object("a");
    let made = subject
        .post(
            &all,
            a.clone(),
            201,
            json!({
                "/metadata/generation": 1, "/spec/replicas": 1,
                "/metadata/managedFields/0/manager": "tester", "/metadata/managedFields/0/operation": "Update",
                "/metadata/managedFields/0/fieldsV1": {"f:spec": {".": {}, "f:owner": {}, "f:replicas": {}}},
            }),
        )
        .await;
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default().len();
    subject.expect("a uid", &json!(uid), &json!(36));
    subject
        .post(
            &all,
            a.clone(),
            409,
            json!({
                "/reason": "AlreadyExists", "/message": "workspaces.berth.dev \"a\" already exists",
                "/details": {"name": "a", "group": "berth.dev", "kind": "workspaces"},
            }),
        )
        .await;
    subject
        .post(&format!("{all}?dryRun=All"), subject.object("dry"), 201, json!({"/metadata/resourceVersion": null}))
        .await;
    subject.get(&subject.path("dry"), 404, json!({"/message": "workspaces.berth.dev \"dry\" not found"})).await;
    let mut bogus = subject.object("bogus");
    bogus["spec"]["bogus"] = json!(1);
    bogus["top"] = json!(1);
    subject
        .post(&format!("{all}?fieldValidation=Strict"), bogus.clone(), 400, json!({"/message":
            "Workspace in version \"v1\" cannot be handled as a Workspace: strict decoding error: unknown field \"spec.bogus\", unknown field \"top\""}))
        .await;
    subject.post(&all, bogus, 201, json!({"/spec/bogus": null, "/top": null})).await;
    let mut wrong = subject.object("wrong");
    wrong["spec"] = json!({"owner": 1});
    subject
        .post(&all, wrong, 422, json!({
            "/message": "Workspace.berth.dev \"wrong\" is invalid: spec.owner: Invalid value: \"integer\": spec.owner in body must be of type string: \"integer\"",
            "/details/causes/0/reason": "FieldValueTypeInvalid", "/details/kind": "Workspace",
        }))
        .await;
    let mut missing = subject.object("missing");
    missing["spec"] = json!({});
    subject
        .post(&all, missing, 422, json!({"/details/causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.owner"}]}))
        .await;
    subject
        .post(
            &all,
            subject.object("Bad_Name"),
            422,
            json!({"/details/causes/0/field": "metadata.name", "/details/causes/0/reason": "FieldValueInvalid"}),
        )
        .await;
    let mut elsewhere = a.clone();
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    subject.post(&all, elsewhere, 400, json!({"/message": "the namespace of the provided object does not match the namespace sent on the request"})).await;
    let mut versioned = a.clone();
    versioned["metadata"]["resourceVersion"] = json!("5");
    subject
        .post(
            &all,
            versioned,
            500,
            json!({"/message": "resourceVersion should not be set on objects to be created", "/reason": null}),
        )
        .await;
    let nowhere = "/apis/berth.dev/v1/namespaces/nowhere/workspaces";
    subject.post(nowhere, a.clone(), 404, json!({"/message": "namespaces \"nowhere\" not found"})).await;
    subject.get(nowhere, 200, json!({"/items": []})).await;
    subject.get("/apis/nothing.dev/v1/x", 404, json!({})).await;
    subject.case("POST", &all, "text/plain", json!("x"), 415, json!({"/reason": "UnsupportedMediaType"})).await;
    let generated = subject.post(&all, json!({"apiVersion": "berth.dev/v1", "kind": "Workspace", "metadata": {"generateName": "gen-"}, "spec": {"owner": "x"}}), 201, json!({})).await;
    let length = generated["metadata"]["name"].as_str().unwrap_or_default().len();
    subject.expect("a generated name", &json!(length), &json!(9));
}

pub(super) async fn updates(subject: &mut Subject) {
    let a = subject.path("a");
    subject.case("PUT", &a, PLAIN, subject.object("a"), 422, json!({"/message": "workspaces.berth.dev \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"})).await;
    let mut stale = subject.object("a");
    stale["metadata"]["resourceVersion"] = json!("1");
    subject
        .case("PUT", &a, PLAIN, stale, 409, json!({"/reason": "Conflict", "/message":
            "Operation cannot be fulfilled on workspaces.berth.dev \"a\": the object has been modified; please apply your changes to the latest version and try again"}))
        .await;
    let patched = subject
        .case(
            "PATCH",
            &a,
            MERGE,
            json!({"spec": {"replicas": 3}, "status": {"phase": "No"}}),
            200,
            json!({"/metadata/generation": 2, "/status": null}),
        )
        .await;
    subject
        .case(
            "PATCH",
            &a,
            MERGE,
            json!({"spec": {"replicas": 3}}),
            200,
            json!({"/metadata/resourceVersion": patched["metadata"]["resourceVersion"]}),
        )
        .await;
    subject.case("PATCH", &a, MERGE, json!({"spec": {"replicas": null}}), 200, json!({"/spec/replicas": 1})).await;
    subject
        .case("PATCH", &a, MERGE, json!({"metadata": {"resourceVersion": "1"}}), 409, json!({"/reason": "Conflict"}))
        .await;
    subject
        .case(
            "PATCH",
            &a,
            MERGE,
            json!({"metadata": {"name": "b"}}),
            400,
            json!({"/message": "the name of the object (b) does not match the name on the URL (a)"}),
        )
        .await;
    subject.case("PATCH", &a, JSON, json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "replace", "path": "/metadata/labels", "value": {"l": "1"}}]), 200, json!({"/metadata/labels/l": "1"})).await;
    subject
        .case(
            "PATCH",
            &a,
            JSON,
            json!([{"op": "remove", "path": "/spec/none"}]),
            422,
            json!({"/message": "the server rejected our request due to an error in our request"}),
        )
        .await;
    subject.case("PATCH", &a, STRATEGIC, json!({}), 415, json!({"/reason": "UnsupportedMediaType"})).await;
    let status = format!("{a}/status");
    subject
        .case("PATCH", &status, MERGE, json!({"status": {"phase": "Running"}, "spec": {"owner": "no"}, "metadata": {"labels": {"no": "no"}}}), 200, json!({
            "/status/phase": "Running", "/spec/owner": "ann", "/metadata/labels": {"l": "1"}, "/metadata/generation": 3,
        }))
        .await;
}

pub(super) async fn applies(subject: &mut Subject) {
    let path = subject.path("applied");
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    let mut config = subject.object("applied");
    config["spec"]["image"] = json!("x");
    subject
        .case("PATCH", &by("one"), APPLY, config.clone(), 201, json!({
            "/metadata/managedFields/0/operation": "Apply", "/metadata/managedFields/0/fieldsV1": {"f:spec": {"f:image": {}, "f:owner": {}}},
        }))
        .await;
    let mut other = config.clone();
    other["spec"]["image"] = json!("y");
    subject
        .case("PATCH", &by("two"), APPLY, other.clone(), 409, json!({
            "/message": "Apply failed with 1 conflict: conflict with \"one\": .spec.image",
            "/details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.image"}]},
        }))
        .await;
    subject.case("PATCH", &by("two&force=true"), APPLY, other, 200, json!({"/spec/image": "y"})).await;
    let without = subject.object("applied");
    subject.case("PATCH", &by("one"), APPLY, without.clone(), 200, json!({"/spec/image": "y"})).await;
    subject.case("PATCH", &by("two"), APPLY, without.clone(), 200, json!({"/spec/image": null})).await;
    subject.case("PATCH", &path, APPLY, without.clone(), 422, json!({"/message": "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"})).await;
    let mut bogus = without;
    bogus["spec"]["bogus"] = json!(1);
    subject.case("PATCH", &by("one"), APPLY, bogus, 500, json!({"/message": "failed to create typed patch object (/applied; berth.dev/v1, Kind=Workspace): .spec.bogus: field not declared in schema"})).await;
}
