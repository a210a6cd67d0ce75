//! The same against the real supervisor, where its program was built.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use berth_api_types::automations::AutomationPhase;
use berth_api_types::public::Phase;

use crate::support::service_at;

/// `berth-init` as process 1 of a pid namespace of its own, with a checkout as its default folder.
struct Supervisor {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, beside the folder of this test's own.
fn program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.parent()?.parent()?.join("berth-init");
    program.is_file().then_some(program)
}

impl Supervisor {
    fn start(program: &Path, automations: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkout = folder.path().join("app");
        std::fs::create_dir_all(checkout.join(".berth")).unwrap();
        std::fs::write(checkout.join(".berth/automations.yaml"), automations).unwrap();
        let listener = UnixListener::bind(folder.path().join("supervisor.sock")).unwrap();
        let child = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "sh",
                "-c",
                "exec 3<&0 0</dev/null; exec \"$@\"",
                "sh",
            ])
            .arg(program)
            .args(["init", "--listen-fd", "3", "--run-dir"])
            .arg(folder.path().join("run"))
            .arg("--cwd")
            .arg(&checkout)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn node(&self) -> Router {
        let socket = self.folder.path().join("supervisor.sock");
        Router::new().route(
            "/internal/instances/{instance}/supervisor",
            get(move |request: Request| async move {
                berth_http::upgrade::accept(request, "berth-supervisor", move |stream| async move {
                    if let Ok(supervisor) = tokio::net::UnixStream::connect(&socket).await {
                        berth_http::relay(stream, supervisor).await;
                    }
                })
            }),
        )
    }
}

#[tokio::test]
async fn tasks_and_services_under_the_real_supervisor() {
    let Some(program) = program() else {
        println!("skipped: target/debug/berth-init is not built; `cargo build -p berth-init` makes it");
        return;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this test needs to be root");
        return;
    }
    let text = r#"
services:
  web:
    name: Web
    dependsOn: [install]
    triggeredBy: [postEnvironmentStart]
    readinessTimeout: 20s
    commands:
      start: "echo serving; touch up; exec sleep 1000"
      ready: "test -e up"
      stop: "echo asked to stop; rm up"
tasks:
  install:
    command: "pwd > where; echo commit=abc >> $BERTH_OUTPUT; echo installed"
  fails:
    command: "echo no >&2; exit 7"
  check:
    command: "test -e up && echo it is up"
    dependsOn: [web]
"#;
    let supervisor = Supervisor::start(&program, text);
    let mut service = service_at(supervisor.node()).await;
    service.instance(1, Phase::Running, true).await;
    service.wait("/services/web", AutomationPhase::Running).await;
    let install = service.wait("/tasks/install", AutomationPhase::Succeeded).await;
    assert_eq!(install.execution.unwrap().outputs["commit"], "abc");
    let checkout = supervisor.folder.path().join("app");
    assert_eq!(std::fs::read_to_string(checkout.join("where")).unwrap().trim(), checkout.to_str().unwrap());
    let logs = service.call("GET", "/tasks/install/logs", "anna").await;
    assert_eq!(logs.text, "installed\n");

    service.kill().await;
    service.restart();
    service.post("/tasks/check/start").await;
    let logs = service.call("GET", "/tasks/check/logs?follow=true", "anna").await;
    assert_eq!(logs.text, "it is up\n");
    service.wait("/tasks/check", AutomationPhase::Succeeded).await;

    service.post("/tasks/fails/start").await;
    let fails = service.wait("/tasks/fails", AutomationPhase::Failed).await;
    assert_eq!(fails.execution.unwrap().exit_code, Some(7));
    assert!(!fails.reason.is_empty());
    assert_eq!(service.call("GET", "/tasks/fails/logs", "anna").await.text, "no\n");

    service.post("/services/web/stop").await;
    service.wait("/services/web", AutomationPhase::Stopped).await;
    assert!(!checkout.join("up").exists(), "its stop command ran");
    let logs = service.call("GET", "/services/web/logs", "anna").await;
    assert!(logs.text.starts_with("serving\n"), "{}", logs.text);
}
