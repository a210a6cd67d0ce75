//! up, list, show, stop, start, rename, delete.

use berth_testkit::OnTerminal;

use super::{World, assert_workspace};
use crate::support::wait_for;

/// Without a terminal: live steps on standard error, the receipt and the next commands on standard output.
pub(super) fn a_workspace_is_opened(world: &World) {
    let server = &world.server;
    let ran = server.run(&["up", &world.hello.url, "--name", "hello"]);
    assert_eq!(ran.status, 0, "{ran}");
    for step in ["resolve", "checkout", "ready"] {
        assert!(ran.stderr.contains(step) && ran.stdout.contains(step), "no {step}: {ran}");
    }
    assert!(ran.stdout.contains("total") && ran.stdout.contains("berth shell hello"), "{ran}");

    let shown = server.json(&["show", "hello"]);
    assert_workspace(&shown);
    assert_eq!((&shown["name"], &shown["phase"], &shown["ref"]), (&"hello".into(), &"Running".into(), &"main".into()));
    assert_eq!((&shown["class"], &shown["reason"]), (&"small".into(), &"".into()));
    assert_eq!(shown["commit"].as_str().unwrap(), world.hello.git(&["rev-parse", "main"]).unwrap());
    let given = &shown["resources"];
    assert_eq!(given["pids"], server.json(&["class", "list"])[0]["pids"], "{shown}");
    assert!(
        given["memory_bytes"].as_i64().unwrap() > 0 && shown["image_digest"].as_str().unwrap().starts_with("sha256:")
    );
    let steps = shown["receipt"]["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["duration_us"].is_u64()), "{shown}");
    assert!(shown["receipt"]["total_us"].as_u64().unwrap() > 0 && shown["started_at"].is_string());
    let id = shown["id"].as_str().unwrap();
    assert_eq!(server.json(&["show", id]), shown);
    let container = steps.iter().find(|step| step["name"] == "container").unwrap();
    let phases: Vec<(&str, u64)> = container["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| (phase["name"].as_str().unwrap(), phase["ended_ns"].as_u64().unwrap()))
        .collect();
    for name in ["config", "namespaces", "rootfs", "cgroup"] {
        assert!(phases.iter().any(|(phase, _)| *phase == name), "{name} in {phases:?}");
    }
    assert!(phases.is_sorted_by_key(|(_, ended)| *ended), "{phases:?}");
    assert!(phases.iter().all(|(_, ended)| ended / 1000 <= container["duration_us"].as_u64().unwrap()), "{phases:?}");
    let text = server.ok(&["show", id]);
    assert!(text.contains("receipt") && text.contains("namespaces"), "{text}");

    // The same once more: it is there already.
    let again = server.json(&["up", &world.hello.url, "--name", "hello"]);
    assert_workspace(&again);
    assert_eq!(again["id"], shown["id"]);
    assert!(server.fails(&["up", &format!("{}/", world.url), "--name", "hello"], 5).contains("choose another --name"));

    let list = server.json(&["list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_workspace(&list[0]);
    assert!(server.ok(&["ls"]).contains("hello"));
    assert_eq!(server.json(&["list", "--phase", "Stopped"]).as_array().unwrap().len(), 0);
    assert_eq!(server.json(&["list", "--phase", "Running", "--all"]).as_array().unwrap().len(), 1);
    assert!(server.fails(&["list", "--phase", "Sleeping"], 2).contains("Sleeping"));
}

/// stop and start return when it is done, and lose nothing.
pub(super) fn a_workspace_stops_and_starts_with_its_files(world: &World) {
    let server = &world.server;
    server.ok(&["exec", "hello", "--", "sh", "-c", "echo kept > /root/note; echo more >> README.md"]);
    let stopped = server.json(&["stop", "hello"]);
    assert_workspace(&stopped);
    assert_eq!(stopped["phase"], "Stopped");
    assert!(server.ok(&["stop", "hello"]).contains("Stopped"), "a stopped workspace may be stopped");
    assert!(server.fails(&["exec", "hello", "--", "true"], 5).contains("start it first"));
    assert!(server.fails(&["shell", "hello"], 5).contains("start it first"));
    assert!(server.fails(&["ports", "hello"], 5).contains("start it first"));

    let started = server.json(&["start", "hello"]);
    assert_workspace(&started);
    assert_eq!(started["phase"], "Running");
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "/root/note", "README.md"]), "kept\nhi\nmore\n");

    // Without waiting; exec waits for Running by itself.
    assert_eq!(server.json(&["stop", "hello", "--no-wait"])["id"], started["id"]);
    server.wait_phase("hello", "Stopped");
    assert_ne!(server.json(&["start", "hello", "--no-wait"])["phase"], "Running");
    assert_eq!(server.ok(&["exec", "hello", "--", "echo", "awake"]), "awake\n");

    // A start waits for a stop that is under way, unless it is not to wait; so does `up` of the same name.
    let url = world.hello.url.as_str();
    for again in [&["start", "hello"][..], &["up", url, "--name", "hello"]] {
        server.ok(&["stop", "hello", "--no-wait"]);
        assert_eq!(server.json(again)["phase"], "Running");
    }

    assert_eq!(server.json(&["rename", "hello", "hallo"])["name"], "hallo");
    assert_eq!(server.json(&["show", "hallo"])["id"], started["id"]);
    assert!(server.ok(&["rename", "hallo", "hello"]).contains("hello"));
    assert!(server.fails(&["rename", "hello", "Not A Name"], 1).contains("lower"));
}

/// On a terminal, with a class, an image, a branch, a generated name, without waiting.
pub(super) fn ways_to_open(world: &World) {
    let server = &world.server;
    let mut terminal =
        OnTerminal::spawn(&server.command(&["up", &world.hello.url, "--name", "second", "--class", "medium"])).unwrap();
    terminal.expect("second is ready after").unwrap();
    terminal.send("pwd; nproc; exit 3\n").unwrap();
    terminal.expect("/workspace/hello").unwrap();
    let (status, shown) = terminal.finish().unwrap();
    assert_eq!(status.code(), Some(3), "the shell's status is ours: {shown}");
    assert_eq!(server.json(&["show", "second"])["class"], "medium");
    assert_eq!(server.ok(&["delete", "second"]), "second: deleted\n");
    assert!(server.fails(&["show", "second"], 3).contains("no such workspace"));

    let branch = world.hello.url.replace(".git", "/src/branch/feature");
    let accepted = server.json(&["up", &branch, "--no-wait", "--image", "berth/base"]);
    assert_workspace(&accepted);
    let id = accepted["id"].as_str().unwrap();
    assert_ne!(accepted["phase"], "Running");
    let name = accepted["name"].as_str().unwrap();
    assert!(name.starts_with("hello") && name != "hello", "a name of its own: {name}");
    let running = server.wait_phase(id, "Running");
    assert_eq!((&running["image"], &running["ref"]), (&"berth/base".into(), &"feature".into()));
    assert_eq!(server.ok(&["exec", id, "--", "cat", "feature.txt"]), "new\n");
    let deleted = server.json(&["delete", id, "--no-wait"]);
    assert!(deleted.is_object(), "{deleted}");
    wait_for("the deletion", || (server.run(&["show", id]).status == 3).then_some(()));
}

/// Documented statuses, with the reason and the remedy.
pub(super) fn mistakes_have_their_status(world: &World) {
    let server = &world.server;
    for args in [
        &["show", "nope"][..],
        &["stop", "nope"],
        &["start", "nope"],
        &["delete", "nope"],
        &["logs", "nope"],
        &["exec", "nope", "--", "true"],
        &["shell", "nope"],
        &["shell", "nope", "--list"],
        &["ports", "nope"],
        &["cp", "nope:/etc/hosts", "."],
        &["rename", "nope", "yes"],
        &["task", "list", "nope"],
        &["task", "logs", "hello", "nope"],
        &["service", "stop", "hello", "nope"],
        &["git-credential", "remove", "nope.example.com"],
        &["token", "revoke", "01a21bb6-b600-702b-9b24-7dfb56630623"],
    ] {
        server.fails(args, 3);
    }
    let class = server.fails(&["up", &world.hello.url, "--class", "gigantic"], 1);
    assert!(class.contains("gigantic") && class.contains("small"), "the classes there are: {class}");
    assert!(server.fails(&["up", &world.hello.url, "--name", "Not_A_Name"], 1).contains("lower"));
    assert!(server.fails(&["up", &world.hello.url, "--image", "NOT AN IMAGE"], 1).contains("image"));
    assert!(server.fails(&["cp", "a", "b"], 2).contains("WORKSPACE:PATH"));
    assert!(server.fails(&["port-forward", "hello", "http"], 2).contains("LOCAL:REMOTE"));
    assert!(server.fails(&["port-forward", "nope", "8080"], 3).contains("no such workspace"));
    assert!(server.fails(&["usage", "--from", "yesterday"], 2).contains("2026-11-01T08:00:00Z"));
    assert!(server.fails(&["exec", "hello", "--env", "=x", "--", "true"], 2).contains("NAME=VALUE"));
    assert!(server.fails(&["exec", "hello", "--", ""], 2).contains("the command is empty"));
    assert!(
        server.fails(&["exec", "hello", "--", "sh", "-c", &"x ".repeat(50_000)], 2).contains("too long: pipe it in")
    );
    assert!(server.fails(&["show", ""], 2).contains("`berth list`"));
    assert!(server.fails(&["show", "nope"], 3).contains("\"nope\""));
    assert!(server.fails(&["token", "create", "x", "--expires-in-days", "4000"], 1).contains("366"));
}
