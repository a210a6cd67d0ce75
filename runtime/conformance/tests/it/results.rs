//! Results of the suite that are completed on another machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{missing, said, skip};

fn suite(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-conformance"));
    command.arg("--runtime").arg(folder.join("runtime")).args(args).current_dir(folder);
    command
}

fn read(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[test]
fn what_was_skipped_elsewhere_is_run_and_joined_with_the_rest() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip!("not root");
    }
    if let Some(reason) = missing(&["busybox"]) {
        skip!("{reason}");
    }
    let stage = tempfile::tempdir()?;
    let folder = stage.path();
    // One that can do nothing: what is run here fails.
    fs::write(folder.join("runtime"), "#!/bin/sh\n[ \"$1\" = --version ] && exec echo nothing 1.0\nexit 1\n")?;
    fs::set_permissions(folder.join("runtime"), fs::Permissions::from_mode(0o755))?;
    said(&mut suite(folder, &["--filter", "lifecycle.state-", "--results", "first.json"]))?;
    let first = read(&folder.join("first.json"))?;
    let names = |results: &Value| -> Vec<Value> {
        results["tests"].as_array().into_iter().flatten().map(|report| report["test"].clone()).collect()
    };
    ensure!(names(&first).len() > 2, "{first}");

    // As if the first had been skipped elsewhere, the second were unknown there, and the others passed; one there is no more.
    let mut elsewhere = first.clone();
    let tests = elsewhere["tests"].as_array_mut().context("no tests")?;
    for report in tests.iter_mut() {
        report["outcome"] = json!("passed");
    }
    tests[0]["outcome"] = json!("skipped");
    tests[1]["test"] = json!("lifecycle.there-is-no-such-test");
    fs::write(folder.join("elsewhere.json"), elsewhere.to_string())?;
    let args = ["--filter", "lifecycle.state-", "--complete", "elsewhere.json", "--results", "joined.json"];
    said(&mut suite(folder, &args))?;
    let joined = read(&folder.join("joined.json"))?;
    ensure!(names(&joined) == names(&first), "{joined}");
    let outcomes: Vec<&Value> = (0..names(&first).len()).map(|n| &joined["tests"][n]["outcome"]).collect();
    ensure!(outcomes[..2] == ["failed", "failed"] && outcomes[2..].iter().all(|one| **one == "passed"), "{outcomes:?}");
    ensure!(joined["failed"] == 2 && joined["taken"] == outcomes.len() - 2, "{joined}");

    // Results of others are refused.
    elsewhere["runtime"] = json!("another 1.0");
    fs::write(folder.join("elsewhere.json"), elsewhere.to_string())?;
    let refused = said(&mut suite(folder, &args))?;
    ensure!(refused.code == 2 && refused.stderr.contains("another 1.0"), "{refused:?}");
    Ok(())
}
