use berth_api_types::internal::{GitCredentialReply, LookupGitCredential};
use berth_ids::InstanceId;
use berth_scm::{Config, Scm};
use serde_json::json;

use crate::support::{Service, build, service, user};

const PATH: &str = "/api/v1/git-credentials";

async fn look_up(service: &Service, name: &str, host: &str, repository_host: &str) -> Option<GitCredentialReply> {
    let question = LookupGitCredential {
        instance_id: InstanceId::from_uuid(user("anna").as_uuid()),
        user_id: user(name),
        host: host.to_owned(),
        repository_host: repository_host.to_owned(),
    };
    service.internal().post("/internal/git-credentials/lookup", &question).await.unwrap()
}

#[tokio::test]
async fn kept_listed_used_and_forgotten() {
    let service = service(&[], |_| {}).await;
    let body = |host: &str, password: &str| json!({ "host": host, "password": password });
    let made = service.call("POST", PATH, "anna", body("GitHub.com:443", "ghp_one")).await;
    assert_eq!((made.status.as_u16(), made.json["host"].as_str()), (201, Some("github.com")));
    assert_eq!(made.json["username"], "git");
    assert!(!made.text.contains("ghp_one"));
    let again = service.call("POST", PATH, "anna", body("https://github.com/", "ghp_two")).await;
    assert_eq!((again.status.as_u16(), &again.json["id"]), (200, &made.json["id"]));
    assert_eq!(service.call("POST", PATH, "anna", body("git.lan:8443", "x")).await.status, 201);

    let first = service.call("GET", &format!("{PATH}?limit=1"), "anna", json!(null)).await;
    assert_eq!(first.json["items"][0]["host"], "git.lan:8443");
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = service.call("GET", &format!("{PATH}?limit=1&cursor={cursor}"), "anna", json!(null)).await;
    assert_eq!((&second.json["items"][0]["host"], &second.json["next_cursor"]), (&json!("github.com"), &json!(null)));
    assert!(!second.text.contains("ghp_"), "{}", second.text);
    assert_eq!(service.call("GET", PATH, "ben", json!(null)).await.json["items"], json!([]));

    let found = look_up(&service, "anna", "github.com", "github.com").await.unwrap();
    assert_eq!((found.username.as_str(), found.password.as_str()), ("git", "ghp_two"));
    assert!(look_up(&service, "anna", "git.lan:8443", "github.com").await.is_none(), "another host's credential");
    assert!(look_up(&service, "anna", "github.com.evil.example", "github.com").await.is_none());
    assert!(look_up(&service, "ben", "github.com", "github.com").await.is_none(), "another user's credential");
    let used = service.call("GET", PATH, "anna", json!(null)).await;
    assert!(used.json["items"][1]["last_used_at"].is_string(), "{}", used.text);

    assert_eq!(service.call("DELETE", &format!("{PATH}/github.com"), "ben", json!(null)).await.status, 404);
    assert_eq!(service.call("DELETE", &format!("{PATH}/github.com"), "anna", json!(null)).await.status, 204);
    assert_eq!(service.call("DELETE", &format!("{PATH}/git.lan%3A8443"), "anna", json!(null)).await.status, 204);
    assert_eq!(service.call("DELETE", &format!("{PATH}/git.lan%3A8443"), "anna", json!(null)).await.status, 404);
    assert!(look_up(&service, "anna", "github.com", "github.com").await.is_none());
}

#[tokio::test]
async fn nobody_without_a_token() {
    let service = service(&[], |_| {}).await;
    for (method, path) in
        [("GET", PATH.to_owned()), ("POST", PATH.to_owned()), ("DELETE", format!("{PATH}/github.com"))]
    {
        for token in ["", "eve"] {
            let answer = service.call(method, &path, token, json!({ "host": "a.example", "password": "x" })).await;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_a_credential() {
    let service = service(&[], |_| {}).await;
    for body in [
        json!({ "host": "https://github.com/o", "password": "x" }),
        json!({ "host": "", "password": "x" }),
        json!({ "host": "-x.example", "password": "x" }),
        json!({ "host": "github.com", "password": "" }),
        json!({ "host": "github.com", "password": "a\nb" }),
        json!({ "host": "github.com", "username": "a:b", "password": "x" }),
        json!({ "host": "github.com", "username": "a\r\nb", "password": "x" }),
        json!({ "host": "github.com", "password": "x", "extra": 1 }),
    ] {
        let answer = service.call("POST", PATH, "anna", body.clone()).await;
        assert!(answer.status == 422 || answer.status == 400, "{body}: {}", answer.text);
    }
}

#[tokio::test]
async fn secrets_are_sealed_in_the_database_and_open_with_the_master_key_only() {
    let mut service = service(&[], |_| {}).await;
    let body = json!({ "host": "github.com", "username": "u", "password": "plain-text-token" });
    assert_eq!(service.call("POST", PATH, "anna", body.clone()).await.status, 201);
    assert_eq!(service.call("POST", PATH, "ben", body).await.status, 201);
    let rows: Vec<(Vec<u8>,)> =
        sqlx::query_as("SELECT password FROM scm.git_credentials").fetch_all(&service.database.pool).await.unwrap();
    for (sealed,) in &rows {
        assert!(!String::from_utf8_lossy(sealed).contains("plain-text-token"));
    }
    // A secret put into another row does not open there.
    sqlx::query("UPDATE scm.git_credentials SET password = $1 WHERE user_id = $2")
        .bind(&rows[0].0)
        .bind(user("ben"))
        .execute(&service.database.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE scm.data_keys SET wrapped = (SELECT wrapped FROM scm.data_keys WHERE user_id = $1)")
        .bind(user("anna"))
        .execute(&service.database.pool)
        .await
        .unwrap();
    let lookup = |name: &str| json!({ "instance_id": user("anna"), "user_id": user(name), "host": "github.com", "repository_host": "github.com" });
    let client = service.internal();
    let bens: Result<Option<GitCredentialReply>, _> =
        client.post("/internal/git-credentials/lookup", &lookup("ben")).await;
    assert!(bens.is_err());
    // After a restart the same key opens it, another does not.
    service.scm = build(&service.config, &service.database);
    let found = look_up(&service, "anna", "github.com", "github.com").await.unwrap();
    assert_eq!(found.password, "plain-text-token");
    let other = tempfile::tempdir().unwrap();
    service.config.master_key_file = other.path().join("key");
    service.scm = build(&service.config, &service.database);
    let client = service.internal();
    let annas: Result<Option<GitCredentialReply>, _> =
        client.post("/internal/git-credentials/lookup", &lookup("anna")).await;
    assert!(annas.is_err());
    // A change is told to the audit log, without the secret.
    let events: Vec<(String,)> = sqlx::query_as("SELECT payload::text FROM outbox.events WHERE topic = 'audit'")
        .fetch_all(&service.database.pool)
        .await
        .unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|(event,)| event.contains("git_credential.set") && !event.contains("plain-text-token")));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named() {
    let service = service(&[], |_| {}).await;
    let refused = |change: fn(&mut Config)| {
        let mut config = service.config.clone();
        change(&mut config);
        let pool = service.database.pool.clone();
        let clock = berth_clock::SystemClock::shared();
        let entropy = std::sync::Arc::new(berth_clock::SystemEntropy);
        match Scm::new(&config, pool, clock, entropy, std::sync::Arc::new(crate::support::Tokens)) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    };
    assert!(
        refused(|config| config.allow_private_hosts = vec!["localhost".to_owned()]).contains("scm.allow_private_hosts")
    );
    assert!(refused(|config| config.timeout_seconds = 0).contains("scm.timeout_seconds"));
    assert!(refused(|config| config.master_key_file = "".into()).contains("scm.master_key_file"));
    let bad_host =
        refused(|config| config.hosts = [("a b".to_owned(), berth_api_types::context::Provider::Gitea)].into());
    assert!(bad_host.contains("scm.hosts"), "{bad_host}");
}
