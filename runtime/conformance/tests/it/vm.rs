//! The same tests in a virtual machine with cgroups of version 2, systemd, CRIU and an ordinary user, which the machine
//! that builds need not have; and the conformance tests of those.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::support::{hull, on_path, said, skip};

/// Set inside.
const INSIDE: &str = "HULL_INSIDE_VM";

/// `vm/run`'s word for "there is none".
const NO_MACHINE: i32 = 77;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run")
}

/// Topics of the suite that need what only the virtual machine has; the others' tests run on any machine.
const TOPICS: [&str; 5] = ["apparmor.", "cgroup2.", "systemd.", "checkpoint.", "rootless."];

#[test]
fn tests_in_a_virtual_machine() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    // It emulates a processor: a quarter of an hour on a busy machine, so only when it is asked for.
    if std::env::var_os("VM_RUN").is_none() {
        skip!("VM_RUN names no program that runs a virtual machine");
    }
    let hull = match hull() {
        Ok(hull) => hull,
        Err(reason) => skip!("{reason}"),
    };
    let stage = tempfile::tempdir()?;
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755))?;
    let suite = PathBuf::from(env!("CARGO_BIN_EXE_hull-conformance"));
    let mut programs = vec![("hull", hull), ("it", std::env::current_exe()?), ("hull-conformance", suite)];
    // Debian has none, so the machine inside has not either.
    let crictl = on_path("crictl");
    let skip_kubernetes = if crictl.is_none() { "--skip pods_of_kubernetes" } else { "" };
    programs.extend(crictl.map(|path| ("crictl", path)));
    for (name, path) in programs {
        fs::copy(path, stage.path().join(name))?;
    }
    let filters = TOPICS.map(|topic| format!("--filter {topic}")).join(" ");
    // From the machine's own disk: the shared folder is slow.
    let inside = format!(
        "cp * /usr/local/bin/
        HULL=/usr/local/bin/hull {INSIDE}=1 it --test-threads 1 --nocapture --skip vm:: {skip_kubernetes} > engines 2>&1
        echo $? > status
        for driver in '' --option=--systemd-cgroup; do
            hull-conformance --runtime hull --patience 120 {filters} $driver >> conformance 2>&1
            echo $? >> status
        done"
    );
    let run = said(Command::new(script()).arg(stage.path()).arg("1500").args(["sh", "-c", &inside]))?;
    if run.code == NO_MACHINE {
        skip!("{}", run.stderr.trim());
    }
    let text = |name: &str| fs::read_to_string(stage.path().join(name)).unwrap_or_default();
    let (engines, conformance) = (text("engines"), text("conformance"));
    eprintln!("{engines}\n{conformance}");
    ensure!(
        text("status") == "0\n0\n0\n",
        "tests failed in the virtual machine, or it ended early: {}{}\n{engines}\n{conformance}",
        run.stdout,
        run.stderr
    );
    // Everything that the engines need is there: a skipped one would prove nothing.
    ensure!(!engines.contains("skipped:"), "tests were skipped in the virtual machine:\n{engines}");
    Ok(())
}

#[test]
fn a_machine_that_hangs_while_it_boots_is_started_again() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip!("not root");
    }
    let stage = tempfile::tempdir()?;
    let shared = stage.path().join("shared");
    fs::create_dir(&shared)?;
    // The first one never comes to its command, and leaves a process that must not outlive it.
    let machine = stage.path().join("vm-run");
    let text = format!(
        "#!/bin/sh
        echo $$ >> {0}/attempts
        [ $(wc -l < {0}/attempts) = 1 ] && {{ sleep 1000 & echo $! > {0}/left; wait; }}
        : > {0}/shared/booted
        exit 7",
        stage.path().display()
    );
    fs::write(&machine, text)?;
    fs::set_permissions(&machine, fs::Permissions::from_mode(0o755))?;
    let run = said(
        Command::new(script()).arg(&shared).args(["60", "true"]).env("VM_RUN", &machine).env("VM_BOOT_SECONDS", "2"),
    )?;
    ensure!(run.code == 7, "the command's exit status is lost: {} {}", run.code, run.stderr);
    let attempts = fs::read_to_string(stage.path().join("attempts"))?;
    ensure!(attempts.lines().count() == 2, "attempts: {attempts:?}, {}", run.stderr);
    let left = fs::read_to_string(stage.path().join("left"))?;
    ensure!(!Path::new("/proc").join(left.trim()).exists(), "process {left} of the first machine is still there");
    Ok(())
}
