//! The place in which the suites of others run (`suites/sandbox`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Folder, missing, skip};

/// Leaves a frozen process behind, in a cgroup below a frozen one; the process namespace cannot end before it does.
const FREEZE: &str = "sleep 1000 & pid=$!
    for base in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/freezer; do
        [ -e $base/cgroup.procs ] || continue
        mkdir -p $base/outer/inner
        echo $pid >$base/outer/inner/cgroup.procs
        [ ! -e $base/outer/freezer.state ] || echo FROZEN >$base/outer/freezer.state
        [ ! -e $base/outer/cgroup.freeze ] || echo 1 >$base/outer/cgroup.freeze
        frozen=yes
    done
    echo frozen: $frozen
    exec \"$@\"";

/// Runs the script and more in a sandbox, and ends that, if wanted, once something is frozen; what is left of its cgroups.
fn left_by(more: &[&str], ended: bool) -> Result<Vec<PathBuf>> {
    let folder = Folder::new("sandbox")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/sandbox");
    let said = folder.join("said");
    let mut command = Command::new(script);
    command.arg(folder.join(".")).args(["sh", "-c", FREEZE, "sh"]).args(more);
    let mut sandbox = command.stdin(Stdio::null()).stdout(fs::File::create(&said)?).spawn()?;
    let group = format!("berth-suites-{}", sandbox.id());
    let pid = i32::try_from(sandbox.id()).ok().and_then(Pid::from_raw).context("process id")?;
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut told = !ended;
    while sandbox.try_wait()?.is_none() {
        if !told && fs::read_to_string(&said)?.contains("frozen: yes") {
            kill_process(pid, Signal::TERM)?;
            told = true;
        }
        if Instant::now() > deadline {
            sandbox.kill()?;
        }
        std::thread::yield_now();
    }
    let said = fs::read_to_string(&said)?;
    ensure!(said.contains("frozen: yes"), "nothing was frozen: {said:?}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path());
    let places = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(&group));
    Ok(places.filter(|place| place.exists()).collect())
}

fn unable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    missing(&["catatonit", "unshare", "ip", "xargs"])
}

#[test]
fn frozen_processes_end_with_the_command() -> Result<()> {
    if let Some(reason) = unable() {
        skip!("{reason}");
    }
    let left = left_by(&["true"], false)?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

#[test]
fn frozen_processes_end_with_a_sandbox_that_is_ended() -> Result<()> {
    if let Some(reason) = unable() {
        skip!("{reason}");
    }
    let left = left_by(&["sleep", "999"], true)?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}
