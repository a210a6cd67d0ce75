//! task and service.

use std::process::Stdio;

use super::World;
use crate::support::wait_for;

/// The repository's automations.
pub(super) const FILE: &str = r#"
services:
  web:
    name: Web
    triggeredBy: [postEnvironmentStart]
    commands:
      start: echo serving; touch /tmp/up; exec sleep 1000
      ready: test -e /tmp/up
tasks:
  build:
    name: Build
    command: echo building; echo "artifact=app.tar" >> "$BERTH_OUTPUT"
    triggeredBy: [manual]
  long:
    name: Long
    command: exec sleep 1000
  broken:
    name: Broken
    command: echo about to fail; exit 3
    triggeredBy: [manual]
"#;

pub(super) fn tasks_and_services_run(world: &World) {
    let server = &world.server;
    let phase = |kind: &str, key: &str, wanted: &str| {
        wait_for(&format!("{kind} {key} to be {wanted}"), || {
            let list = server.json(&[kind, "list", "hello"]);
            let item = list["items"].as_array().unwrap().iter().find(|item| item["reference"] == key).cloned();
            item.filter(|item| item["phase"] == wanted)
        })
    };
    phase("service", "web", "Running");
    assert_eq!(server.ok(&["service", "logs", "hello", "web"]), "serving\n");
    server.ok(&["service", "stop", "hello", "web"]);
    phase("service", "web", "Stopped");
    assert_eq!(server.ok(&["service", "logs", "hello", "web"]), "serving\n", "kept after its end");
    server.json(&["service", "start", "hello", "web"]);
    phase("service", "web", "Running");

    phase("task", "build", "Idle");
    server.ok(&["task", "start", "hello", "build"]);
    let built = phase("task", "build", "Succeeded");
    assert_eq!(built["execution"]["outputs"]["artifact"], "app.tar", "{built}");
    assert_eq!(server.ok(&["task", "logs", "hello", "build"]), "building\n");
    server.ok(&["task", "start", "hello", "broken"]);
    let broken = phase("task", "broken", "Failed");
    assert!(broken["reason"].as_str().unwrap().contains('3'), "{broken}");
    assert!(server.ok(&["task", "list", "hello"]).contains("broken"));
    server.ok(&["task", "start", "hello", "long"]);
    phase("task", "long", "Running");
    server.ok(&["task", "stop", "hello", "long"]);
    phase("task", "long", "Stopped");

    // A log that is followed ends with the run.
    let follow = server.command(&["service", "logs", "hello", "web", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    server.ok(&["service", "stop", "hello", "web"]);
    let followed = follow.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "serving\n");
    server.ok(&["service", "start", "hello", "web"]);
    phase("service", "web", "Running");
}

/// What a service wrote is there when the workspace has stopped while it ran.
pub(super) fn output_outlives_the_run(world: &World) {
    let server = &world.server;
    wait_for("the service to run again", || {
        let list = server.json(&["service", "list", "hello"]);
        (list["items"][0]["phase"] == "Running").then_some(())
    });
    server.ok(&["stop", "hello"]);
    wait_for("the output to be kept", || {
        (server.run(&["service", "logs", "hello", "web"]).stdout == "serving\n").then_some(())
    });
    assert_ne!(server.json(&["service", "list", "hello"])["items"][0]["phase"], "Running");
    let logs = server.ok(&["logs", "hello"]);
    assert!(logs.contains("the workspace is ready\n"), "of the instance that stopped: {logs}");
    server.ok(&["start", "hello"]);
}
