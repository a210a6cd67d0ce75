//! Records that are not as hull wrote them.

use std::path::Path;

use crate::bundle::{bundle, text};
use crate::program::until;

#[test]
fn a_container_whose_state_is_damaged_is_deleted_by_force() {
    let Some(b) = bundle("damaged", "sleep 1000 & exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let state: serde_json::Value = serde_json::from_slice(&b.hull(&["state", &b.id]).stdout).unwrap();
    let process = format!("/proc/{}", state["pid"]);
    let file = b.records().join(&b.id).join("state.json");
    for damage in ["", "{\"id\":", "[]"] {
        std::fs::write(&file, damage).unwrap();
        for args in [&["state", &b.id][..], &["delete", &b.id], &["kill", &b.id], &["exec", &b.id, "true"]] {
            let output = b.hull(args);
            let said = text(&output.stderr);
            assert!(
                !output.status.success() && said.contains("state.json") && said.contains("--force"),
                "{args:?}: {said}"
            );
        }
        assert!(b.hull_detached(&["list"]));
    }
    assert!(Path::new(&process).exists());
    let output = b.hull(&["delete", "--force", &b.id]);
    assert!(output.status.success() && text(&output.stderr).contains("state.json"), "{}", text(&output.stderr));
    until("the end of its process", || !Path::new(&process).exists());
    assert!(!b.records().join(&b.id).exists());
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!hierarchy.path().join("berth-test").join(&b.id).exists(), "{}", hierarchy.path().display());
    }
    assert!(!b.hull_detached(&["state", &b.id]));
}

/// Whoever renamed a directory has made no container: its files tell of another one.
#[test]
fn records_of_another_container_are_not_acted_upon() {
    let Some(b) = bundle("renamed", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let copy = b.records().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in ["state.json", "config.json"] {
        std::fs::copy(b.records().join(&b.id).join(name), copy.join(name)).unwrap();
    }
    let output = b.hull(&["delete", "--force", "copy"]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("another container's"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(crate::program::status(&b), "running");
}

#[test]
fn a_list_where_an_object_belongs_is_refused() {
    let Some(b) = bundle("lists", "true") else { return };
    let mut config = serde_json::to_value(&b.spec).unwrap();
    config["linux"] = serde_json::json!([]);
    std::fs::write(b.path().join("config.json"), config.to_string()).unwrap();
    let output = b.hull(&["run", &b.id]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("expected an object"),
        "{}",
        text(&output.stderr)
    );
}
