//! The OpenAPI document.

use std::path::Path;

use crate::support::service_at_rest;

#[tokio::test]
async fn the_committed_document_is_the_served_one() {
    let (service, _) = service_at_rest().await;
    let served = service.nobody().get("/openapi.json").await;
    assert_eq!(served.status, 200);
    assert_eq!(served.body["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    let mut text = serde_json::to_string_pretty(&served.body).unwrap();
    text.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/api.json");
    if std::env::var_os("BERTH_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "openapi/api.json is not what the code says: BERTH_UPDATE=1 cargo test -p berth-api the_committed_document"
    );
}

#[tokio::test]
async fn every_response_has_a_description() {
    let (service, _) = service_at_rest().await;
    let document = service.nobody().get("/openapi.json").await.body;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described || response.get("$ref").is_some(), "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let (service, _) = service_at_rest().await;
    let document = service.nobody().get("/openapi.json").await.body;
    let mut stack = vec![&document];
    let mut count = 0;
    while let Some(value) = stack.pop() {
        if let Some(reference) = value.get("$ref").and_then(serde_json::Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            count += 1;
        }
        match value {
            serde_json::Value::Object(map) => stack.extend(map.values()),
            serde_json::Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(count > 50);
}
