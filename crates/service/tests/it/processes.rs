//! Each service and the node agent as a process of its own, over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use berth_clock::SystemClock;
use berth_http::service_auth::{KUBERNETES_AUDIENCE, ServiceKeys, ServiceTokens};
use berth_testkit::{GitServer, Repository};
use serde_json::{Value, json};

use crate::support::{Installation, SERVICES, User, ok, repository, told, wait_for};

/// A server inside the workspace that answers each connection with the same word: the same process as long as its number is the same.
const ECHO: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8000, Listen => 9, ReuseAddr => 1) \
    or die; while (my $c = $s->accept) { print $c \"pid $$\\n\"; close $c }";

const AUTOMATIONS: &str =
    "tasks:\n  greet:\n    name: Greet\n    command: echo hello from a task\n    triggeredBy: [manual]\n";

fn repository_of(git: &GitServer) -> Repository {
    git.repository("team", "app", &[("README.md", "hello\n"), (".berth/automations.yaml", AUTOMATIONS)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_opens_through_separate_processes() {
    let git = GitServer::start().await.unwrap();
    let Some(mut installation) = Installation::start(&git.address().to_string()).await else { return };
    let user = User::of(&installation.url());
    sign_in(&installation, &user);
    the_edge_serves_every_operation(&user);

    let receipt = user.json(&["up", &repository_of(&git).url, "--name", "app", "--no-shell"]);
    assert_eq!(receipt["phase"], "Running", "{receipt}");
    let readme = user.berth(&["exec", "app", "--", "cat", "README.md"]);
    assert_eq!(readme, "hello");
    assert_eq!(user.run(&["exec", "app", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    a_task_runs(&user);
    the_gateways_changes_go_by_way_of_api(&user);

    user.berth(&[
        "exec",
        "app",
        "--",
        "sh",
        "-c",
        &format!("setsid perl -e '{}' </dev/null >/dev/null 2>&1 &", ECHO.replace('\'', "'\\''")),
    ]);
    let (forward, port) = forward(&user);
    let server = wait_for("the forwarded port", 30, || greeting(port));
    assert!(server.starts_with("pid "), "{server}");

    nobody_gets_past_the_listeners(&installation);

    let instance = user.json(&["show", "app"])["instance_id"].clone();
    for service in SERVICES {
        installation.kill(service);
        // What runs does not depend on who watches it.
        installation.run(service);
        installation.wait_until_it_answers(service);
        wait_for(&format!("exec after the end of {service}"), 60, || {
            let output = user.run(&["exec", "app", "--", "cat", "README.md"]);
            (output.status.success() && output.stdout == b"hello\n").then_some(())
        });
        assert_eq!(wait_for("the forwarded port", 30, || greeting(port)), server, "after the end of {service}");
        let shown = user.json(&["show", "app"]);
        assert_eq!((&shown["instance_id"], shown["phase"].as_str()), (&instance, Some("Running")), "after {service}");
    }
    end(forward);

    user.berth(&["exec", "app", "--", "sh", "-c", "echo kept > /workspace/kept"]);
    user.berth(&["stop", "app"]);
    assert_eq!(user.json(&["show", "app"])["phase"], "Stopped");
    user.berth(&["start", "app"]);
    assert_eq!(user.berth(&["exec", "app", "--", "cat", "/workspace/kept"]), "kept");
    let usage = wait_for("both runs in the usage", 30, || {
        let usage = user.json(&["usage"])["items"].take();
        (usage.as_array()?.len() == 2).then_some(usage)
    });
    assert!(usage.as_array().unwrap().iter().all(|record| record["workspace_name"] == "app"), "{usage}");
    user.berth(&["delete", "app"]);
    assert_eq!(user.json(&["list"]), json!([]));
    installation.stop();
}

/// A terminal that is asked for twice with one key is opened once, as in one process.
fn the_gateways_changes_go_by_way_of_api(user: &User) {
    let stored = std::fs::read(user.file(".config/berth/credentials.json")).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    let token = format!("authorization: Bearer {}", stored["token"].as_str().unwrap());
    let open =
        || user.request("POST", "/api/v1/workspaces/app/terminals", &[&token, "idempotency-key: once"], &json!({}));
    let (status, head, first) = open();
    assert_eq!(status, 201, "{first}");
    assert!(head.contains("ratelimit-remaining: "), "{head}");
    let (status, head, again) = open();
    assert_eq!((status, &again["id"]), (201, &first["id"]));
    assert!(head.contains("idempotency-replayed: true"), "{head}");
    assert_eq!(user.json(&["shell", "app", "--list"]).as_array().map(Vec::len), Some(1));
    let (status, ..) = user.request(
        "DELETE",
        &format!("/api/v1/workspaces/app/terminals/{}", first["id"].as_str().unwrap()),
        &[&token],
        &Value::Null,
    );
    assert_eq!(status, 204);
    // By a name that is none of the installation's it serves nobody.
    let (status, _, body) = user.request("GET", "/api/v1/setup", &["host: evil.example"], &Value::Null);
    assert_eq!((status, &body["code"]), (421, &json!("unknown_host")));
}

/// The first administrator by the link, from a terminal, which is signed in then; and what a browser's cookie is good for.
fn sign_in(installation: &Installation, user: &User) {
    let log = installation.log("api");
    let link = log.split("first administrator: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let link = link.unwrap_or_else(|| panic!("no link in {log}"));
    let admin = user.set_up_by_terminal(link);
    assert_eq!((&admin["email"], &admin["admin"]), (&json!("ada@example.com"), &json!(true)));
    assert_eq!(user.json(&["token", "list"])[0]["name"], "berth setup");
    let cookie = user.session();
    // Somebody else's terminal, with a token of hers.
    let token = user.token(&cookie);
    let elsewhere = User::of(&user.url);
    elsewhere.login(&token);
    assert_eq!(elsewhere.json(&["token", "list"]).as_array().map(Vec::len), Some(2));

    // api, and automations behind it: a foreign page gets nowhere with the user's cookie, nor past the gateway.
    let direct = User::of(&installation.public("automations"));
    let path = "/api/v1/workspaces/app/automations/reload";
    for (who, path) in [(user, "/api/v1/tokens"), (user, path), (&direct, path)] {
        for origin in [&["origin: https://evil.example"][..], &["sec-fetch-site: cross-site"], &[]] {
            let (status, _, body) = who.request("POST", path, &[&[cookie.as_str()], origin].concat(), &json!({}));
            assert_eq!((status, &body["code"]), (403, &json!("cross_origin")), "{origin:?} {path}: {body}");
        }
        let own = format!("origin: {}", user.url);
        let (status, ..) = who.request("POST", path, &[&cookie, &own], &json!({}));
        assert!(
            matches!(status, 404 | 422),
            "{status}: it is known who asks; there is no such workspace, or a name is missing"
        );
    }
}

/// Requests reach the service that has them, with the same layers as in one process.
fn the_edge_serves_every_operation(user: &User) {
    let (status, _, document) = user.request("GET", "/openapi.json", &[], &Value::Null);
    let committed = std::fs::read(repository().join("openapi/berth.json")).unwrap();
    assert_eq!((status, document), (200, serde_json::from_slice(&committed).unwrap()));

    for path in ["/api/v1/workspaces", "/api/v1/usage", "/api/v1/git-credentials", "/api/v1/workspaces/app/tasks"] {
        let (status, _, body) = user.request("GET", path, &[], &Value::Null);
        assert_eq!((status, &body["code"]), (401, &json!("unauthorized")), "{path}: {body}");
    }
    let stored: Value =
        serde_json::from_slice(&std::fs::read(user.file(".config/berth/credentials.json")).unwrap()).unwrap();
    let bearer = format!("authorization: Bearer {}", stored["token"].as_str().unwrap());
    let body = json!({ "host": "git.example.com", "username": "ada", "password": "secret" });
    let add = |key: &str| {
        let key = format!("idempotency-key: {key}");
        user.request("POST", "/api/v1/git-credentials", &[&bearer, &key], &body)
    };
    let (status, head, first) = add("one");
    assert!(status == 201 && head.contains("ratelimit-limit: "), "{status} {head} {first}");
    let (status, head, again) = add("one");
    assert!(status == 201 && head.contains("idempotency-replayed: true") && again == first, "{status} {head} {again}");
}

fn a_task_runs(user: &User) {
    wait_for("the task of automations.yaml", 30, || {
        let tasks = user.json(&["task", "list", "app"]);
        (tasks["items"][0]["reference"] == "greet").then_some(())
    });
    user.berth(&["task", "start", "app", "greet"]);
    wait_for("the task's output", 30, || {
        user.berth(&["task", "logs", "app", "greet"]).contains("hello from a task").then_some(())
    });
}

/// `berth port-forward`, and the port it chose.
fn forward(user: &User) -> (Child, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = user.command(&["port-forward", "app", &format!("{port}:8000")]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (child, port)
}

fn greeting(port: u16) -> Option<String> {
    let mut text = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.flush().ok()?;
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Internal routes and the Kubernetes API: nobody without a token, nobody with one for somebody else, no service that has no business there.
fn nobody_gets_past_the_listeners(installation: &Installation) {
    let pem = |name: &str| std::fs::read(installation.secret(name)).unwrap();
    let keys = ServiceKeys::from_pem(&pem("services.key"), &pem("services.pub")).unwrap();
    let token =
        |issuer, audience| ServiceTokens::for_service(issuer, keys.clone(), SystemClock::shared()).token_for(audience);
    let status = |url: &str, path: &str, token: Option<&str>| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "30"]);
        command.arg("--cacert").arg(installation.secret("kubernetes.crt"));
        if let Some(token) = token {
            command.args(["--header", &format!("authorization: Bearer {token}")]);
        }
        ok(command.arg(format!("{url}{path}")))
    };
    let other = Arc::new(foreign_keys());
    let forged = |issuer, audience| {
        ServiceTokens::for_service(issuer, ServiceKeys::clone(&other), SystemClock::shared()).token_for(audience)
    };
    for (service, path, caller) in [
        ("api", "/internal/workspaces/019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77", "automations"),
        ("scm", "/internal/contexts/resolve", "api"),
        ("ws-manager", "/internal/instances", "api"),
        ("node", "/internal/instances/019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77/logs", "gateway"),
        ("billing", "/internal/x", "api"),
        ("automations", "/internal/x", "api"),
        ("gateway", "/internal/x", "api"),
    ] {
        let url = installation.internal(service);
        for wrong in [
            None,
            Some(String::new()),
            Some(token(caller, "somebody-else")),
            Some(token("nobody", service)),
            Some(forged(caller, service)),
        ] {
            assert_eq!(status(&url, path, wrong.as_deref()), "401", "{service} {wrong:?}");
        }
        let takes_calls = !matches!(service, "billing" | "automations" | "gateway");
        let answer = status(&url, path, Some(&token(caller, service)));
        assert_eq!(answer != "401", takes_calls, "{service} answers {caller} with {answer}");
        // Internal routes are not on the public listeners.
        if !matches!(service, "ws-manager" | "node") {
            let answer = status(&installation.public(service), path, Some(&token(caller, service)));
            assert!(matches!(answer.as_str(), "401" | "404"), "{service}: {answer}");
        }
    }
    let (url, path) = (installation.kubernetes(), "/api/v1/namespaces/berth/pods");
    assert_eq!(status(&url, path, Some(&token("node", KUBERNETES_AUDIENCE))), "200");
    let administrator = std::fs::read_to_string(installation.secret("kubernetes.token")).unwrap();
    assert_eq!(status(&url, path, Some(administrator.trim())), "200");
    for wrong in
        [token("gateway", KUBERNETES_AUDIENCE), token("node", "ws-manager"), forged("node", KUBERNETES_AUDIENCE)]
    {
        assert_eq!(status(&url, path, Some(&wrong)), "401");
    }
    assert!(matches!(status(&url, path, None).as_str(), "401" | "403"));
}

/// A key pair of another installation.
fn foreign_keys() -> ServiceKeys {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(repository().join("deploy/compose/init")).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let pem = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    ServiceKeys::from_pem(&pem("services.key"), &pem("services.pub")).unwrap()
}
