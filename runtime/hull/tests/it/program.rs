//! The command line.

use std::time::{Duration, Instant};

use crate::bundle::{Bundle, bundle};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn status(b: &Bundle) -> String {
    let output = b.hull(&["state", &b.id]);
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    state["status"].as_str().unwrap_or("").to_owned()
}

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "{what} did not happen");
    }
}

fn cgroups_left(b: &Bundle) -> Vec<String> {
    let mut out = Vec::new();
    for base in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let path = base.path().join("berth-test").join(&b.id);
        if path.exists() {
            out.push(path.display().to_string());
        }
    }
    out
}

#[test]
fn run_gives_output_and_exit_status_and_leaves_nothing() {
    let Some(b) = bundle("run", "echo $(cat /proc/sys/kernel/hostname) $$; exit 7") else { return };
    b.write();
    let output = b.hull(&["run", &b.id]);
    assert_eq!(text(&output.stdout), "hull-test 1", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
    assert!(!b.records().join(&b.id).exists());
}

#[test]
fn a_container_goes_through_its_life() {
    let Some(b) = bundle("life", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    assert_eq!(status(&b), "created");
    assert!(b.hull_detached(&["start", &b.id]));
    assert_eq!(status(&b), "running");
    let output = b.hull(&["exec", "--user", "1000:1001", &b.id, "sh", "-c", "id -u; id -g; exit 3"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("1000\n1001", Some(3)));
    assert!(b.hull_detached(&["pause", &b.id]));
    assert_eq!(status(&b), "paused");
    assert!(b.hull_detached(&["resume", &b.id]));
    assert!(!b.hull_detached(&["delete", &b.id]), "a running container is not deleted");
    assert!(b.hull_detached(&["kill", &b.id, "KILL"]));
    until("the end", || status(&b) == "stopped");
    assert!(b.hull_detached(&["delete", &b.id]));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
}

#[test]
fn only_standard_streams_are_open_in_the_program() {
    let Some(b) = bundle("fds", "echo /proc/self/fd/*") else { return };
    b.write();
    let output = b.hull(&["run", &b.id]);
    // The fourth is the directory the shell lists.
    assert_eq!(text(&output.stdout), "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3");
}

#[test]
fn a_failed_create_leaves_nothing_and_says_why() {
    let Some(mut b) = bundle("fail", "true") else { return };
    if let Some(process) = &mut b.spec.process {
        process.args = vec!["no-such-program".to_owned()];
    }
    b.write();
    let output = b.hull(&["--log-format", "json", "run", &b.id]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
    assert_eq!(line["code"], "exec");
    assert_eq!(line["phase"], "process");
    assert!(line["msg"].as_str().unwrap().contains("executable file not found in $PATH"));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
    assert!(!b.records().join(&b.id).exists());
}

#[test]
fn delete_force_cleans_up_after_a_killed_runtime() {
    let Some(b) = bundle("killed", "true") else { return };
    b.write();
    // A runtime that dies in the middle of creation, again and again at another moment.
    for microseconds in [500u64, 1500, 3000, 5000, 8000, 12_000] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hull"))
            .arg("--root")
            .arg(b.records())
            .args(["create", &b.id])
            .current_dir(b.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_micros(microseconds);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = b.hull(&["delete", "--force", &b.id]);
        assert!(output.status.success(), "{microseconds}: {}", text(&output.stderr));
        assert_eq!(cgroups_left(&b), Vec::<String>::new(), "{microseconds}");
        assert!(!b.records().join(&b.id).exists());
    }
}

#[test]
fn phases_of_a_start_are_recorded() {
    let Some(b) = bundle("phases", "true") else { return };
    b.write();
    assert!(b.hull_detached(&["--timeline", "timeline.json", "run", &b.id]));
    let lines = std::fs::read_to_string(b.path().join("timeline.json")).unwrap();
    let phases: Vec<String> = lines
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["phase"].as_str().unwrap().to_owned())
        .collect();
    for phase in ["config", "cgroup", "namespaces", "rootfs", "started", "deleted"] {
        assert!(phases.iter().any(|p| p == phase), "{phase} is missing in {phases:?}");
    }
}

#[test]
fn pages_and_completions_name_every_command() {
    let Some(b) = bundle("pages", "true") else { return };
    let help = text(&b.hull(&["help"]).stdout);
    for name in ["create", "exec", "checkpoint", "explain"] {
        assert!(help.contains(name));
        assert!(text(&b.hull(&["man", name]).stdout).starts_with(".TH"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(text(&b.hull(&["completion", shell]).stdout).contains(name));
        }
    }
}
