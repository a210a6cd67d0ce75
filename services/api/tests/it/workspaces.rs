//! Making, finding, changing workspaces.

use serde_json::json;

use crate::support::service;
use crate::support::ws_manager::Mood;

#[tokio::test]
async fn a_workspace_is_made_started_and_shown_with_its_receipt() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada
        .client
        .post("/api/v1/workspaces?wait=true", json!({ "context_url": "https://git.example.com/team/Hello.World" }))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.text("name"), "hello-world");
    assert_eq!(made.text("phase"), "Running");
    assert_eq!(made.text("class"), "small");
    assert_eq!(made.text("ref"), "main");
    assert_eq!(made.text("checkout_path"), "/workspace/Hello.World");
    assert_eq!(made.header("location"), format!("/api/v1/workspaces/{}", made.text("id")));
    let names: Vec<&str> =
        made.body["receipt"]["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["resolve", "authorize", "create", "ready"]);
    assert!(made.body["receipt"]["total_us"].as_u64().unwrap() > 0);
    assert!(made.body["started_at"].is_string());

    for reference in [made.text("id"), "hello-world".to_owned()] {
        let shown = ada.client.get(&format!("/api/v1/workspaces/{reference}")).await;
        assert_eq!((shown.status, shown.text("id")), (200, made.text("id")));
    }
    let receipt = ada.client.get("/api/v1/workspaces/hello-world/receipt").await;
    assert_eq!(receipt.body, made.body["receipt"]);
    let start = &service.ws_manager.starts()[0];
    assert_eq!((start.git_name.as_str(), start.git_email.as_str()), ("ada", "ada@example.com"));
    assert_eq!(start.workspace_name, "hello-world");
}

#[tokio::test]
async fn a_taken_name_gets_a_suffix_unless_it_was_asked_for() {
    let service = service().await;
    let ada = service.person("ada").await;
    let first = ada.client.workspace(json!({ "start": false })).await;
    let second = ada.client.workspace(json!({ "start": false })).await;
    assert_eq!(first.text("name"), "hello");
    assert!(second.text("name").starts_with("hello-"), "{second:?}");
    ada.client.workspace(json!({ "start": false, "name": "hello" })).await.is_problem(409, "name_taken");
    let other = service.person("grace").await;
    assert_eq!(other.client.workspace(json!({ "start": false })).await.text("name"), "hello", "names are per owner");
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_with_the_field() {
    let service = service().await;
    let ada = service.person("ada").await;
    for (body, code, pointer) in [
        (json!({ "context_url": "https://x\ny" }), "invalid_context_url", "/context_url"),
        (json!({ "context_url": "https://git.example.com/a/b", "name": "A" }), "invalid_name", "/name"),
        (json!({ "context_url": "https://git.example.com/a/b", "name": "watch" }), "invalid_name", "/name"),
        (json!({ "context_url": "https://git.example.com/a/b", "class": "huge" }), "unknown_class", "/class"),
        (json!({ "context_url": "https://git.example.com/a/b", "image": "--x" }), "invalid_image", "/image"),
        (
            json!({ "context_url": "https://git.example.com/a/b", "inactivity_seconds": 1 }),
            "invalid_inactivity",
            "/inactivity_seconds",
        ),
    ] {
        let answer = ada.client.post("/api/v1/workspaces", body).await;
        answer.is_problem(422, code);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    ada.client
        .post("/api/v1/workspaces", json!({ "context_url": "https://elsewhere.example/a/b" }))
        .await
        .is_problem(422, "unknown_host");
    ada.client
        .post("/api/v1/workspaces", json!({ "context_url": "https://git.example.com/a/b", "clas": "x" }))
        .await
        .is_problem(422, "invalid_body");
    assert_eq!(service.count("SELECT count(*) FROM api.workspaces").await, 0);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let service = service().await;
    let ada = service.person("ada").await;
    service.person("grace").await.client.workspace(json!({ "start": false })).await;
    let mut made = Vec::new();
    for number in 0..5 {
        let class = if number == 2 { "large" } else { "small" };
        made.push(
            ada.client
                .workspace(json!({ "start": false, "name": format!("ws-{number}"), "class": class }))
                .await
                .text("id"),
        );
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/workspaces?limit=2".to_owned();
    loop {
        let page = ada.client.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/workspaces?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    let mut sorted = made.clone();
    sorted.sort();
    sorted.reverse();
    assert_eq!(seen, sorted);
    let count = async |path: &str| ada.client.get(path).await.body["items"].as_array().map(Vec::len);
    assert_eq!(count("/api/v1/workspaces?class=large").await, Some(1));
    assert_eq!(count("/api/v1/workspaces?phase=Running").await, Some(0));
    assert_eq!(count("/api/v1/workspaces?phase=Running&phase=stopped").await, Some(5));
    assert_eq!(count("/api/v1/workspaces?name=ws-3").await, Some(1));
    assert_eq!(count("/api/v1/workspaces?repository=git.example.com/team/hello").await, Some(5));
    assert_eq!(count("/api/v1/workspaces?repository=git.example.com/team/other").await, Some(0));
    ada.client.get("/api/v1/workspaces?limit=0").await.is_problem(400, "invalid_limit");
    ada.client.get("/api/v1/workspaces?cursor=x").await.is_problem(400, "invalid_cursor");
    let cursor = ada.client.get("/api/v1/workspaces?limit=2").await.text("next_cursor");
    let of_organization = format!("workspaces?organization={}&", ada.organization);
    for list in ["workspaces?class=small&", &of_organization, "tokens?", "organizations?"] {
        ada.client.get(&format!("/api/v1/{list}cursor={cursor}")).await.is_problem(400, "invalid_cursor");
    }
    ada.client.get("/api/v1/workspaces?phase=Sleeping").await.is_problem(400, "invalid_query");
    ada.client.get("/api/v1/workspaces?owner=all").await.is_problem(403, "forbidden");
    assert_eq!(
        service.root().get("/api/v1/workspaces?owner=all").await.body["items"].as_array().map(Vec::len),
        Some(6)
    );
}

#[tokio::test]
async fn a_change_of_what_somebody_else_changed_is_refused() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({ "start": false })).await;
    let path = format!("/api/v1/workspaces/{}", made.text("id"));
    let tag = made.header("etag").to_owned();
    let renamed = ada.client.clone().header("if-match", &tag).patch(&path, json!({ "name": "first" })).await;
    assert_eq!((renamed.status, renamed.text("name")), (200, "first".to_owned()));
    ada.client
        .clone()
        .header("if-match", &tag)
        .patch(&path, json!({ "name": "second" }))
        .await
        .is_problem(412, "changed_meanwhile");
    ada.client.clone().header("if-match", &tag).delete(&path).await.is_problem(412, "changed_meanwhile");
    let again =
        ada.client.clone().header("if-match", renamed.header("etag")).patch(&path, json!({ "name": "second" })).await;
    assert_eq!(again.status, 200);
    let either = format!("{tag}, {}", again.header("etag"));
    assert_eq!(
        ada.client.clone().header("if-match", &either).patch(&path, json!({ "name": "second" })).await.status,
        200
    );
    let strangers = ada.client.clone().header("if-match", "\"theirs\", W/\"4.0\"");
    strangers.patch(&path, json!({ "name": "third" })).await.is_problem(412, "changed_meanwhile");
    strangers.delete(&path).await.is_problem(412, "changed_meanwhile");
    let unquoted = ada.client.clone().header("if-match", "4.0");
    unquoted.patch(&path, json!({ "name": "third" })).await.is_problem(400, "invalid_if_match");
    ada.client.patch(&path, json!({ "name": "-" })).await.is_problem(422, "invalid_name");
    let shown = ada.client.get(&path).await;
    assert_eq!(shown.text("name"), "second");
    let known = ada.client.clone().header("if-none-match", shown.header("etag")).get(&path).await;
    assert_eq!(known.status, 304);
    ada.client.workspace(json!({ "start": false, "name": "taken" })).await;
    ada.client.patch(&path, json!({ "name": "taken" })).await.is_problem(409, "name_taken");
}

#[tokio::test]
async fn a_phase_that_changed_meanwhile_does_not_stand_against_a_rename_and_a_timeout_holds_at_once() {
    let service = service().await;
    let ada = service.person("ada").await;
    service.ws_manager.mood(Mood::Hangs);
    let made = ada.client.workspace(json!({})).await;
    let path = format!("/api/v1/workspaces/{}", made.text("id"));
    let id = made.text("instance_id").parse().unwrap();
    let (_, mut events) = ada.client.events(&format!("{path}/watch")).await;
    service.ws_manager.say(id, |status| status.phase = berth_api_types::public::Phase::Creating);
    events.phase("Creating").await;
    let changed = ada.client.clone().header("if-match", made.header("etag"));
    let changed = changed.patch(&path, json!({ "name": "other", "inactivity_seconds": 600 })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(service.ws_manager.timeouts(), [(id, 600)]);
}

#[tokio::test]
async fn others_names_are_found_by_an_administrator_only_when_one_has_it() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let made = ada.client.workspace(json!({ "start": false, "name": "unique" })).await;
    assert_eq!(service.root().get("/api/v1/workspaces/unique").await.text("id"), made.text("id"));
    grace.client.get("/api/v1/workspaces/unique").await.is_problem(404, "not_found");
    grace.client.get(&format!("/api/v1/workspaces/{}", made.text("id"))).await.is_problem(404, "not_found");
    grace.client.workspace(json!({ "start": false, "name": "unique" })).await;
    service.root().get("/api/v1/workspaces/unique").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn classes_are_those_of_ws_manager() {
    let service = service().await;
    let ada = service.person("ada").await;
    let classes = ada.client.get("/api/v1/classes").await;
    assert_eq!(classes.body["items"][0]["name"], "small");
}

#[tokio::test]
async fn shown_by_many_at_once_each_is_itself_and_never_old() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let mut paths = Vec::new();
    for number in 0..10 {
        let made = ada.client.workspace(json!({ "start": false, "name": format!("w{number}") })).await;
        paths.push(format!("/api/v1/workspaces/{}", made.text("id")));
    }
    for round in 0..10 {
        let name = format!("w{round}-renamed");
        let others = futures::future::join_all(paths.iter().map(|path| ada.client.get(path)));
        let rename = async {
            assert_eq!(ada.client.patch(&paths[round], json!({ "name": name })).await.status, 200);
            // Asked after the change, while others ask too.
            ada.client.get(&paths[round]).await.text("name")
        };
        let (shown, foreign, others) = tokio::join!(rename, grace.client.get(&paths[round]), others);
        assert_eq!(shown, name);
        foreign.is_problem(404, "not_found");
        for (path, other) in paths.iter().zip(others) {
            assert!(path.ends_with(&other.text("id")), "{path}: {other:?}");
        }
    }
}

#[tokio::test]
async fn a_deletion_is_refused_when_a_change_wins_the_race() {
    let service = service().await;
    let ada = service.person("ada").await;
    let made = ada.client.workspace(json!({ "start": false })).await;
    let id: uuid::Uuid = made.text("id").parse().unwrap();
    // A change that has not committed: who reads sees the version before it, who writes waits for it.
    let mut change = service.database.pool.begin().await.unwrap();
    sqlx::query("UPDATE api.workspaces SET revision = revision + 1 WHERE id = $1")
        .bind(id)
        .execute(&mut *change)
        .await
        .unwrap();
    let client = ada.client.clone().header("if-match", made.header("etag"));
    let path = format!("/api/v1/workspaces/{id}");
    let deletion = tokio::spawn(async move { client.delete(&path).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&service.database.pool).await.unwrap() == 0 {
        assert!(!deletion.is_finished(), "{:?}", deletion.await);
        tokio::task::yield_now().await;
    }
    change.commit().await.unwrap();
    deletion.await.unwrap().is_problem(412, "changed_meanwhile");
    let shown = ada.client.get(&format!("/api/v1/workspaces/{id}")).await;
    assert_eq!(shown.status, 200);
    let tag = shown.header("etag").to_owned();
    assert_eq!(
        ada.client.clone().header("if-match", &tag).delete(&format!("/api/v1/workspaces/{id}")).await.status,
        204
    );
}

#[tokio::test]
async fn a_nul_character_is_the_clients_mistake() {
    let service = service().await;
    let ada = service.person("ada").await;
    ada.client.get("/api/v1/workspaces/%00").await.is_problem(400, "invalid_path");
    ada.client.get("/api/v1/workspaces?name=%00").await.is_problem(400, "invalid_query");
    ada.client.patch("/api/v1/users/me", json!({ "git_email": "a\u{0}@example.com" })).await;
    let body = json!({ "context_url": "https://git.example.com/team/hello", "image": "a\u{0}b" });
    let refused = ada.client.post("/api/v1/workspaces", body).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    let refused = ada.client.post("/api/v1/tokens", json!({ "name": "a\u{0}b" })).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let service = service().await;
    let (ada, grace) = (service.person("ada").await, service.person("grace").await);
    let hers = grace.client.workspace(json!({ "start": false })).await.text("id");
    for reference in ["nope", hers.as_str(), "019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77"] {
        let missing = ada.client.get(&format!("/api/v1/workspaces/{reference}")).await;
        missing.is_problem(404, "not_found");
        let told = format!("there is no such workspace: {reference:?} (`berth list` shows yours)");
        assert_eq!(missing.text("detail"), told, "also of somebody else's");
        let stop = ada.client.post(&format!("/api/v1/workspaces/{reference}/stop"), json!({})).await;
        assert_eq!(stop.body["detail"], told);
    }
}

#[tokio::test]
async fn what_an_operation_does_not_take_is_refused() {
    let service = service().await;
    let ada = service.person("ada").await;
    for (path, named) in [
        ("/api/v1/workspaces?phases=Running", "phases"),
        ("/api/v1/workspaces?limit=1&limit=2", "limit"),
        ("/api/v1/workspaces?Name=a", "Name"),
        ("/api/v1/users/me?x=1", "x"),
        ("/api/v1/workspaces/watch?phase=Running", "phase"),
    ] {
        let refused = ada.client.get(path).await;
        refused.is_problem(400, "invalid_query");
        assert_eq!(refused.body["errors"][0]["pointer"], named, "{path}");
    }
    let listed = ada.client.get("/api/v1/workspaces?phase=Running&phase=Stopped&limit=3").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    ada.client.post("/api/v1/workspaces?waits=true", json!({})).await.is_problem(400, "invalid_query");
    // Who is not signed in learns nothing of it.
    let nobody = service.nobody();
    nobody.get("/api/v1/workspaces?phases=Running").await.is_problem(401, "unauthorized");
    nobody.get("/api/v1/setup?x=1").await.is_problem(400, "invalid_query");
}
