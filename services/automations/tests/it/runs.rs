use berth_api_types::automations::AutomationPhase;
use berth_api_types::public::Phase;

use crate::support::{service, service_with};

const FILE: &str = r#"
services:
  db:
    name: Database
    triggeredBy: [postEnvironmentStart]
    dependsOn: [prepare]
    commands:
      start: "echo db up; touch $DIR/db; exec sleep 1000"
      ready: "test -e $DIR/db"
tasks:
  prepare:
    name: Prepare
    command: "echo preparing; echo version=7 >> $BERTH_OUTPUT; echo path=/x=y >> $BERTH_OUTPUT"
  once:
    command: "echo once"
    triggeredBy: [postDevcontainerStart]
  test:
    command: "test -e $DIR/db && echo tests pass"
    dependsOn: [db]
  broken:
    command: "echo oops; exit 3"
  after:
    command: "true"
    dependsOn: [broken]
  all:
    dependsOn: [test, prepare]
  built:
    command: "true"
    triggeredBy: [prebuild]
"#;

fn file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = FILE.replace("$DIR", folder.path().to_str().unwrap());
    (folder, text)
}

#[tokio::test]
async fn a_start_triggers_what_the_file_says_in_order() {
    let (_folder, text) = file();
    let service = service(&text).await;
    service.instance(1, Phase::Pending, true).await;
    service.instance(1, Phase::Running, true).await;
    let db = service.wait("/services/db", AutomationPhase::Running).await;
    assert!(db.execution.as_ref().unwrap().ready_at.is_some());
    assert_eq!(db.execution.unwrap().started_by, "postEnvironmentStart");
    let prepare = service.wait("/tasks/prepare", AutomationPhase::Succeeded).await;
    let execution = prepare.execution.unwrap();
    assert_eq!((execution.started_by.as_str(), execution.exit_code), ("dependency", Some(0)));
    assert_eq!((execution.outputs["version"].as_str(), execution.outputs["path"].as_str()), ("7", "/x=y"));
    let once = service.wait("/tasks/once", AutomationPhase::Succeeded).await;
    assert_eq!(once.execution.unwrap().started_by, "postDevcontainerStart");
    let list = service.list("tasks").await;
    assert_eq!((list.file.state.as_str(), list.file.path.as_str()), ("applied", ".berth/automations.yaml"));
    assert_eq!(list.file.warnings.len(), 1, "prebuild is not fired yet");
    let built = list.items.iter().find(|task| task.reference == "built").unwrap();
    assert_eq!((built.phase, built.not_fired_yet.as_slice()), (AutomationPhase::Idle, &["prebuild".to_owned()][..]));

    // The next start of the workspace: `once` was for the first.
    service.instance(1, Phase::Stopped, false).await;
    service.wait("/services/db", AutomationPhase::Stopped).await;
    service.instance(2, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    assert_eq!((service.workspace.runs("once"), service.workspace.runs("prepare")), (1, 2));
}

#[tokio::test]
async fn started_and_stopped_by_hand() {
    let (_folder, text) = file();
    let service = service(&text).await;
    service.instance(1, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    assert_eq!(service.post("/tasks/all/start").await.status, 202);
    service.wait("/tasks/all", AutomationPhase::Succeeded).await;
    assert_eq!(service.workspace.runs("test"), 1);
    assert_eq!(service.workspace.runs("prepare"), 1, "it was done for db");
    assert_eq!(service.workspace.runs("all"), 0, "it only stands for others");

    assert_eq!(service.post("/tasks/after/start").await.status, 202);
    let broken = service.wait("/tasks/broken", AutomationPhase::Failed).await;
    assert_eq!(
        (broken.reason.as_str(), broken.execution.unwrap().exit_code),
        ("its command ended with exit code 3", Some(3))
    );
    let after = service.wait("/tasks/after", AutomationPhase::Failed).await;
    assert_eq!(after.reason, "broken failed, and this depends on it");

    assert_eq!(service.post("/services/db/start").await.status, 202, "it runs already");
    assert_eq!(service.post("/services/db/stop").await.status, 202);
    service.wait("/services/db", AutomationPhase::Stopped).await;
    assert_eq!(service.post("/services/db/stop").await.status, 202, "it does not run");
    assert_eq!(service.workspace.runs("db"), 1);
    assert_eq!(service.post("/services/db/start").await.status, 202);
    service.wait("/services/db", AutomationPhase::Running).await;
    assert_eq!((service.workspace.runs("db"), service.workspace.runs("prepare")), (2, 1));
    // What changed something is told to the audit log, and only that.
    let told = service.audited().await;
    assert_eq!(
        told[told.len() - 2..],
        ["anna@example.com service.stop demo/db", "anna@example.com service.start demo/db"]
    );

    assert_eq!(service.post("/tasks/nosuch/start").await.status, 404);
    assert_eq!(service.post("/services/test/start").await.status, 404, "it is a task");
}

#[tokio::test]
async fn started_while_it_stops_it_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let text = format!(
        "services:\n  slow:\n    name: Slow\n    commands:\n      start: exec sleep 1000\n      stop: while ! test -e {0}; do sleep 0.05; done\n    triggeredBy: [postEnvironmentStart]\n  web: {{name: Web, commands: {{start: exec sleep 1000}}, dependsOn: [slow]}}\n",
        gate.display()
    );
    let mut service = service(&text).await;
    service.instance(1, Phase::Running, true).await;
    service.wait("/services/slow", AutomationPhase::Running).await;
    service.post("/services/slow/stop").await;
    service.wait("/services/slow", AutomationPhase::Stopping).await;
    // A stop after a start is what counts.
    service.post("/services/slow/start").await;
    service.post("/services/slow/stop").await;
    assert_eq!(service.wait("/services/slow", AutomationPhase::Stopping).await.reason, "");
    // As what another needs.
    assert_eq!(service.post("/services/web/start").await.status, 202);
    let stopping = service.wait("/services/slow", AutomationPhase::Stopping).await;
    assert_eq!(stopping.reason, "it starts again when it has stopped");
    service.kill().await;
    service.restart();
    std::fs::write(&gate, "").unwrap();
    service.wait("/services/web", AutomationPhase::Running).await;
    let again = service.wait("/services/slow", AutomationPhase::Running).await;
    assert_eq!(again.execution.unwrap().started_by, "dependency");
    assert_eq!((service.workspace.runs("slow"), service.workspace.runs("web")), (2, 1));
    service.post("/services/slow/stop").await;
    service.wait("/services/slow", AutomationPhase::Stopped).await;
}

#[tokio::test]
async fn what_was_just_started_has_its_tasks() {
    let service = service("tasks:\n  build: {command: echo built}\n").await;
    assert_eq!(service.post("/tasks/build/start").await.status, 409, "nobody knows yet what its file says");
    // Its file cannot be read yet when somebody asks.
    service.workspace.away.send_replace(true);
    service.runs_says_api(1);
    service.instance(1, Phase::Running, true).await;
    let read = async {
        service.workspace.refuses(1).await;
        service.workspace.away.send_replace(false);
    };
    let (started, list, ()) = tokio::join!(service.post("/tasks/build/start"), service.list("tasks"), read);
    assert_eq!(started.status, 202, "{}", started.text);
    assert_eq!((list.file.state.as_str(), list.items.len()), ("applied", 1));
    // What was asked for is seen, too.
    service.workspace.files.lock().unwrap().insert(".berth/automations.yaml".to_owned(), "tasks: {}\n".to_owned());
    assert_eq!(service.post("/automations/reload").await.status, 202);
    assert_eq!(service.list("tasks").await.items.len(), 0);
}

#[tokio::test]
async fn the_units_are_listed_once_for_all_that_start_together() {
    const TASKS: u64 = 60;
    let tasks: String = (0..TASKS)
        .map(|number| format!("  t{number}: {{command: echo done, triggeredBy: [postEnvironmentStart]}}\n"))
        .collect();
    let service = service(&format!("tasks:\n{tasks}")).await;
    service.instance(1, Phase::Running, true).await;
    for number in 0..TASKS {
        service.wait(&format!("/tasks/t{number}"), AutomationPhase::Succeeded).await;
        assert_eq!(service.workspace.runs(&format!("t{number}")), 1);
        assert_eq!(service.call("GET", &format!("/tasks/t{number}/logs"), "anna").await.text, "done\n");
    }
    assert!(service.workspace.listed() < TASKS / 10, "listed {} times", service.workspace.listed());
}

#[tokio::test]
async fn output_while_it_runs_and_after() {
    let (_folder, text) = file();
    let service = service(&text).await;
    service.instance(1, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    let logs = service.call("GET", "/services/db/logs", "reader").await;
    assert_eq!((logs.status.as_u16(), logs.text.as_str()), (200, "db up\n"));
    assert_eq!(service.call("GET", "/tasks/built/logs", "anna").await.status, 404, "it never ran");
    // Followed from before its beginning to its end.
    service.post("/tasks/test/start").await;
    let logs = service.call("GET", "/tasks/test/logs?follow=true", "anna").await;
    assert_eq!(logs.text, "tests pass\n");
    service.wait("/tasks/test", AutomationPhase::Succeeded).await;
    service.instance(1, Phase::Stopped, false).await;
    service.wait("/services/db", AutomationPhase::Stopped).await;
    service.workspace.away.send_replace(true);
    let logs = service.call("GET", "/tasks/test/logs?tail_bytes=6", "anna").await;
    assert_eq!(logs.text, " pass\n", "kept when the workspace is gone");
}

#[tokio::test]
async fn output_outlives_a_workspace_that_hangs_up_before_it_is_said_to_have_stopped() {
    let (_folder, text) = file();
    let service = service(&text).await;
    service.instance(1, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    // It hangs up, and refuses whoever tries to listen again.
    let refused = service.workspace.refused();
    service.workspace.away.send_replace(true);
    service.workspace.refuses(refused + 4).await;
    service.instance(1, Phase::Stopped, false).await;
    service.wait("/services/db", AutomationPhase::Stopped).await;
    let logs = service.call("GET", "/services/db/logs", "anna").await;
    assert_eq!(logs.text, "db up\n");
}

#[tokio::test]
async fn who_follows_a_run_that_waits_is_told_of_its_end() {
    let text = "tasks:\n  gate: {command: exec sleep 1000}\n  next: {command: echo next, dependsOn: [gate]}\n";
    let service = service(text).await;
    service.instance(1, Phase::Running, false).await;
    service.file("applied").await;
    service.post("/tasks/next/start").await;
    service.wait("/tasks/gate", AutomationPhase::Running).await;
    let follow = service.call("GET", "/tasks/next/logs?follow=true", "anna");
    let stop = async {
        service.post("/tasks/gate/stop").await;
        service.wait("/tasks/next", AutomationPhase::Failed).await
    };
    let (followed, next) = tokio::join!(follow, stop);
    assert_eq!((followed.status.as_u16(), followed.text.as_str()), (200, ""));
    assert_eq!(next.reason, "gate was stopped, and this depends on it");
}

#[tokio::test]
async fn every_operation_asks_api_whether_the_caller_may() {
    let (_folder, text) = file();
    let service = service(&text).await;
    service.instance(1, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    let operations = [
        ("GET", "/tasks"),
        ("GET", "/services"),
        ("GET", "/tasks/test"),
        ("GET", "/services/db"),
        ("GET", "/tasks/prepare/logs"),
        ("GET", "/services/db/logs"),
        ("POST", "/tasks/test/start"),
        ("POST", "/tasks/test/stop"),
        ("POST", "/services/db/start"),
        ("POST", "/services/db/stop"),
        ("POST", "/automations/reload"),
    ];
    for (method, path) in operations {
        assert_eq!(service.call(method, path, "").await.status, 401, "{method} {path}");
        assert_eq!(service.call(method, path, "eve").await.status, 404, "{method} {path}");
        let expected = if method == "GET" { 200 } else { 403 };
        assert_eq!(service.call(method, path, "reader").await.status, expected, "{method} {path}");
    }
    let paths = serde_json::to_value(berth_automations::Automations::openapi()).unwrap();
    let count: usize = paths["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(count, operations.len(), "each operation is in this test");
}

#[tokio::test]
async fn a_refused_file_is_told_with_its_places_and_read_again_on_request() {
    let service = service("tasks:\n  a:\n    cmd: x\n").await;
    service.instance(1, Phase::Running, true).await;
    let list = service.file("refused").await;
    assert_eq!((list.file.errors[0].line, list.file.errors[0].column), (2, 3));
    assert_eq!((list.file.errors[1].line, list.file.errors[1].column), (3, 5));
    assert!(list.file.errors[1].message.contains("\"cmd\""));
    let fixed = "tasks:\n  a:\n    command: x\n    triggeredBy: [postEnvironmentStart]\n";
    service.workspace.files.lock().unwrap().insert(".berth/automations.yaml".to_owned(), fixed.to_owned());
    assert_eq!(service.post("/automations/reload").await.status, 202);
    let list = service.file("applied").await;
    assert_eq!(
        (list.items[0].reference.as_str(), list.items[0].phase),
        ("a", AutomationPhase::Idle),
        "no trigger fires"
    );
}

#[tokio::test]
async fn no_file_and_files_in_the_other_places() {
    let service = service_with(&[]).await;
    service.instance(1, Phase::Running, true).await;
    let list = service.file("absent").await;
    assert!(list.items.is_empty());
    for path in [".ona/automations.yaml", ".gitpod/automations.yaml", "/workspace/app/.gitpod/automations.yaml"] {
        let service = service_with(&[(path, "tasks: {a: {command: 'true'}}")]).await;
        service.instance(1, Phase::Running, true).await;
        let list = service.file("applied").await;
        assert!(path.ends_with(&list.file.path), "{path}");
    }
    let big = "# ".repeat(200_000);
    let service = service_with(&[(".berth/automations.yaml", &big)]).await;
    service.instance(1, Phase::Running, true).await;
    let list = service.file("unreadable").await;
    assert!(list.file.errors[0].message.contains("larger than"), "{:?}", list.file.errors);
}

#[tokio::test]
async fn a_workspace_that_does_not_run() {
    let (_folder, text) = file();
    let service = service(&text).await;
    assert_eq!(service.list("tasks").await.file.state, "unread");
    service.instance(1, Phase::Running, false).await;
    service.wait("/services/db", AutomationPhase::Running).await;
    // api ends a run by itself: the event has the version of the last status.
    service.instance(1, Phase::Stopped, false).await;
    let db = service.wait("/services/db", AutomationPhase::Stopped).await;
    assert_eq!(db.reason, "the workspace stopped");
    let answer = service.post("/tasks/prepare/start").await;
    assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (409, Some("workspace_not_running")));
    assert_eq!(service.post("/automations/reload").await.status, 409);
    assert_eq!(service.post("/services/db/stop").await.status, 202);
    // An old word does not wake it.
    service.instance(1, Phase::Stopping, false).await;
    service.instance(1, Phase::Running, false).await;
    service.instance(0, Phase::Running, false).await;
    service.instance(2, Phase::Pending, false).await;
    assert_eq!(service.post("/tasks/prepare/start").await.status, 409);
}
