//! Who gets in, when, and for how long.

use std::sync::atomic::Ordering;

use berth_api_types::channel::Control;
use berth_api_types::internal::WorkspaceAction;
use berth_api_types::public::Phase;
use berth_gateway::Config;
use berth_supervisor_client::protocol::Request;
use serde_json::json;

use crate::peers::World;

const EXEC: &str = "/exec?arg=cat";

/// Every route, and the right it asks for.
const ROUTES: &[(&str, &str, WorkspaceAction)] = &[
    ("GET", "/terminals", WorkspaceAction::Exec),
    ("POST", "/terminals", WorkspaceAction::Exec),
    ("DELETE", "/terminals/t1", WorkspaceAction::Exec),
    ("GET", "/ports", WorkspaceAction::Connect),
    ("GET", "/ports/watch", WorkspaceAction::Connect),
    ("GET", "/files?path=/file", WorkspaceAction::Exec),
    ("PUT", "/files?path=/file", WorkspaceAction::Exec),
    ("GET", "/logs", WorkspaceAction::Read),
];
const SOCKETS: &[(&str, WorkspaceAction)] = &[
    (EXEC, WorkspaceAction::Exec),
    ("/terminals/t1", WorkspaceAction::Exec),
    ("/ports/8080/connect", WorkspaceAction::Connect),
];

/// An operation that is in no list above is one whose right is not tried.
#[test]
fn every_operation_is_tried() {
    let document = serde_json::to_value(berth_gateway::Gateway::openapi()).unwrap();
    let mut documented: Vec<(String, String)> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            documented.push((method.to_uppercase(), path.replace("/api/v1/workspaces/{workspace}", "")));
        }
    }
    let template = |path: &str| {
        let path = path.split('?').next().unwrap_or_default();
        path.replace("/t1", "/{terminal}").replace("/8080", "/{port}")
    };
    let mut tried: Vec<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), template(path))).collect();
    tried.extend(SOCKETS.iter().map(|(path, _)| ("GET".to_owned(), template(path))));
    documented.sort();
    tried.sort();
    assert_eq!(documented, tried);
}

#[tokio::test]
async fn every_operation_asks_for_its_right() {
    let world = World::new(Phase::Running).await;
    for (method, path, action) in ROUTES {
        let send = |token: Option<&str>| {
            let request = world.http(method.parse().unwrap(), path).json(&serde_json::json!({}));
            match token {
                Some(token) => request.header("authorization", token),
                None => request,
            }
        };
        // Two tokens, or a wrong one, or none that counts.
        assert_eq!(send(Some("Bearer other")).send().await.unwrap().status(), 400, "{path}");
        world.peers.asked.lock().unwrap().clear();
        let status = send(None).send().await.unwrap().status();
        assert!(status.is_success(), "{method} {path}: {status}");
        assert_eq!(*world.peers.asked.lock().unwrap(), [*action], "{method} {path}");
    }
    for (path, action) in SOCKETS {
        world.peers.asked.lock().unwrap().clear();
        world.socket(path, &[]).await.unwrap();
        assert_eq!(*world.peers.asked.lock().unwrap(), [*action], "{path}");
        let refused = world.socket(path, &[("authorization", "Bearer other")]).await.unwrap_err();
        assert_eq!(refused, (401, "unauthorized".into()), "{path}");
    }
    world.peers.allowed.store(false, Ordering::SeqCst);
    for (method, path, _) in ROUTES {
        let request = world.http(method.parse().unwrap(), path).json(&serde_json::json!({}));
        assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
    }
    for (path, _) in SOCKETS {
        assert_eq!(world.socket(path, &[]).await.unwrap_err(), (404, "not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let config = Config { allowed_origins: vec!["https://berth.example".into()], ..Config::default() };
    let world = World::with(Phase::Running, config).await;
    for good in ["https://berth.example", "https://BERTH.example:443"] {
        world.socket(EXEC, &[("origin", good)]).await.unwrap();
    }
    for bad in ["https://evil.example", "https://berth.example.evil.org", "http://berth.example", "null", ""] {
        assert_eq!(world.socket(EXEC, &[("origin", bad)]).await.unwrap_err(), (403, "forbidden".into()), "{bad}");
    }
}

#[tokio::test]
async fn a_workspace_that_does_not_run_is_waited_for_only_when_asked() {
    let world = World::new(Phase::Creating).await;
    assert_eq!(world.socket(EXEC, &[]).await.unwrap_err(), (409, "workspace_not_running".into()));
    let path = format!("{EXEC}&wait=true");
    let (socket, ()) = tokio::join!(world.socket(&path, &[]), async {
        world.set(Phase::Initializing, "");
        world.set(Phase::Running, "");
    });
    assert_eq!(socket.unwrap().expect_control().await, Control::Ready { input_window: None });
}

#[tokio::test]
async fn waiting_ends_when_the_start_fails() {
    let world = World::new(Phase::Creating).await;
    let path = format!("{EXEC}&wait=true");
    let (refused, ()) = tokio::join!(world.socket(&path, &[]), async {
        // Only once the client waits: its right was asked for.
        while world.peers.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        world.set(Phase::Stopped, "branch \"x\" does not exist");
    });
    assert_eq!(refused.unwrap_err(), (409, "workspace_not_running".into()));
}

#[tokio::test]
async fn a_connection_ends_when_its_right_does() {
    let config = Config { recheck_seconds: 1, ..Config::default() };
    let world = World::with(Phase::Running, config).await;
    let mut socket = world.socket("/exec?arg=sleep", &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    world.peers.allowed.store(false, Ordering::SeqCst);
    assert!(matches!(socket.expect_control().await, Control::Error { code, .. } if code == "forbidden"));
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn a_connection_ends_when_the_workspace_stops() {
    let world = World::new(Phase::Running).await;
    let mut socket = world.socket("/ports/8080/connect", &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    world.set(Phase::Stopping, "stopped by Ada");
    world.set(Phase::Stopped, "stopped by Ada");
    let Control::Error { code, message } = socket.expect_control().await else { panic!("an error") };
    assert_eq!((code.as_str(), message.as_str()), ("workspace_stopped", "the workspace stopped: stopped by Ada"));
    assert_eq!(socket.next().await, None);
    assert_eq!(world.socket(EXEC, &[]).await.unwrap_err().0, 409);
}

#[tokio::test]
async fn requests_that_meet_it_first_are_counted_once() {
    let world = World::new(Phase::Running).await;
    world.socket(EXEC, &[]).await.unwrap();
    assert_eq!(world.peers.counted.load(Ordering::SeqCst), 0, "api's layers have counted it");

    let world = World::at_the_edge(Config { recheck_seconds: 1, ..Config::default() }).await;
    let mut socket = world.socket("/exec?arg=sleep", &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    while world.peers.asked.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.peers.counted.load(Ordering::SeqCst), 1, "not when its right is asked for again");
    world.peers.allowance.store(2, Ordering::SeqCst);
    assert_eq!(world.http(reqwest::Method::GET, "/ports").send().await.unwrap().status(), 200);
    let refused = world.http(reqwest::Method::GET, "/ports").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
}

#[tokio::test]
async fn a_port_is_a_number_of_a_port() {
    let world = World::new(Phase::Running).await;
    for port in ["0", "65536", "-1", "x", "80a", "%00", "08080x", "8080%2f"] {
        let refused = world.socket(&format!("/ports/{port}/connect"), &[]).await.unwrap_err();
        assert_eq!(refused, (400, "invalid_path".into()), "{port}");
    }
}

#[tokio::test]
async fn what_is_done_in_a_workspace_is_in_the_audit_log_before_it_is_done() {
    let world = World::new(Phase::Running).await;
    let send = async |method: &str, path: &str, body: serde_json::Value| {
        let request = world.http(method.parse().unwrap(), path).json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    let shell = json!({ "argv": ["ba\u{0}sh", "-c", "echo $SECRET"] });
    world.socket("/exec?arg=cat&arg=secret", &[]).await.unwrap();
    assert_eq!(send("POST", "/terminals", shell.clone()).await, 201);
    assert_eq!(send("POST", "/terminals", json!({})).await, 201);
    assert_eq!(send("PUT", "/files?path=/new", json!({})).await, 204);
    assert_eq!(send("DELETE", "/terminals/t1", json!({})).await, 204);
    let acts = std::mem::take(&mut *world.peers.acts.lock().unwrap());
    let acts: Vec<_> = acts.into_iter().map(|act| (act.name, act.detail)).collect();
    let expected = [
        ("workspace.exec", json!({ "program": "cat" })),
        ("terminal.open", json!({ "program": "bash" })),
        ("terminal.open", json!({ "program": null })),
        ("workspace.upload", json!({ "path": "/new" })),
        ("terminal.close", json!({ "terminal": "t1" })),
    ];
    assert_eq!(acts, expected.map(|(name, detail)| (name.to_owned(), detail)));

    // What reads is no change.
    for path in ["/terminals", "/ports", "/files?path=/file", "/logs"] {
        assert_eq!(send("GET", path, json!({})).await, 200, "{path}");
    }
    assert_eq!(*world.peers.acts.lock().unwrap(), []);

    world.peers.logs_acts.store(false, Ordering::SeqCst);
    world.peers.requests.lock().unwrap().clear();
    assert_eq!(world.socket(EXEC, &[]).await.unwrap_err(), (503, "unavailable".into()));
    assert_eq!(send("POST", "/terminals", shell).await, 503);
    assert_eq!(send("PUT", "/files?path=/new", json!({})).await, 503);
    assert_eq!(send("DELETE", "/terminals/t1", json!({})).await, 503);
    let requests = world.peers.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|request| matches!(request, Request::Stat { .. })), "{requests:?}");
}

#[tokio::test]
async fn what_an_operation_does_not_take_is_refused() {
    let world = World::new(Phase::Running).await;
    for path in ["/exec?arg=cat&args=x", "/exec?arg=cat&cwd=/&cwd=/tmp", "/terminals/t1?row=1"] {
        assert_eq!(world.socket(path, &[]).await.unwrap_err(), (400, "invalid_query".into()), "{path}");
    }
    assert_eq!(world.http(reqwest::Method::GET, "/logs?tails=1").send().await.unwrap().status(), 400);
}
