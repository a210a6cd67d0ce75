//! What must hold without anybody asking for it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::run;
use crate::context::{Cgroups, Context};
use crate::suite::skip;

pub(super) fn release_agent(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script(
        "awk '/ - cgroup/ {print $5, $6}' /proc/self/mountinfo; \
         for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -maxdepth 2); do ( : >> $f && echo writable $f ) 2>/dev/null; done; true",
    )?;
    ensure!(!said.contains("writable"), "{said}");
    for line in said.lines() {
        let options = line.rsplit(' ').next().unwrap_or_default();
        ensure!(options.split(',').any(|option| option == "ro"), "{line} is not read-only");
    }
    Ok(())
}

pub(super) fn sys_read_only(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?.without_namespace("cgroup").without_namespace("network");
    bundle.without_mount("/sys").without_mount("/sys/fs/cgroup");
    bundle.mount("none", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    let said = bundle.run_script("awk '$5 ~ /^\\/sys/ {print $5, $6}' /proc/self/mountinfo")?;
    ensure!(!said.is_empty(), "/sys is not mounted");
    let writable: Vec<&str> = said
        .lines()
        .filter(|line| !line.rsplit(' ').next().unwrap_or_default().split(',').any(|option| option == "ro"))
        .collect();
    ensure!(writable.is_empty(), "can be written: {writable:?}");
    Ok(())
}

pub(super) fn sibling_cgroup(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    let name = folder.file_name().context("cgroup")?.to_string_lossy().into_owned();
    let sibling = folder.with_file_name(format!("{name}2"));
    fs::create_dir(&sibling)?;
    let prefix = if context.cgroups == Cgroups::V1 { "pids:" } else { "" };
    let mut entered = Vec::new();
    for path in [format!("../{name}2"), format!("/../{name}2"), "..".to_owned(), "x/../..".to_owned()] {
        let output = bundle.exec(&["--cgroup", &format!("{prefix}{path}")], "true")?;
        if output.success() {
            entered.push(path);
        }
    }
    fs::remove_dir(&sibling)?;
    ensure!(entered.is_empty(), "exec --cgroup went to {entered:?}");
    Ok(())
}

pub(super) fn host_propagation(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.without_namespace("mount").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    bundle.set("/mounts", serde_json::json!([])).script("true").save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let runtime = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    // In a mount namespace of its own, so that a runtime with the fault does not change this machine.
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "shared",
        "sh",
        "-c",
        "\"$@\" >&2; awk '$5 == \"/\"' /proc/self/mountinfo",
        "sh",
    ]);
    command.arg(runtime.get_program()).args(runtime.get_args()).current_dir(&bundle.path);
    let output = run(&mut command, None)?;
    ensure!(output.stdout.contains(" shared:"), "the host's / is private now: {}", output.stdout);
    Ok(())
}

pub(super) fn notify_mount(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let inside = crate::topics::cli::notified(&mut bundle, "cat /proc/self/mountinfo > /mounts")?;
    let text = fs::read_to_string(bundle.rootfs().join("mounts"))?;
    let folder = std::path::Path::new(&inside).parent().context("socket path")?.to_string_lossy().into_owned();
    let line = text.lines().find(|line| line.split(' ').nth(4).is_some_and(|point| point == folder || point == inside));
    let Some(line) = line else { return Err(skip("the runtime mounts no notify socket")) };
    ensure!(!line.contains(" shared:"), "{line}");
    Ok(())
}

pub(super) fn foreign_state_root(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.save()?;
    let root = bundle.path.join("state");
    fs::create_dir(&root)?;
    let call = |args: &[&str]| {
        let mut command = Command::new(&context.runtime);
        command.arg("--root").arg(&root).args(&context.options).args(args).current_dir(&bundle.path);
        run(&mut command, None)
    };
    let in_shell = |line: &str| run(Command::new("sh").args(["-c", line]).current_dir(&bundle.path), None)?.ok();
    for (make, undo) in [("chown 12345:12345 state", "chown 0:0 state"), ("chmod 777 state", "chmod 711 state")] {
        in_shell(make)?;
        let made = call(&["run", &bundle.id])?;
        let list = call(&["list"])?;
        ensure!(!made.success() && !list.success(), "after {make}, run or list used the directory");
        ensure!(made.stderr.contains("--root"), "the error names no remedy: {}", made.stderr);
        in_shell(undo)?;
        call(&["run", &bundle.id])?.ok()?;
    }
    // As /tmp: only who made an entry can rename or remove it.
    in_shell("chmod 1777 state")?;
    call(&["run", &bundle.id])?.ok().map(drop)
}

pub(super) fn foreign_state(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = context.work.join("state").join(&bundle.id);
    let chown = |owner: &str| run(Command::new("chown").arg("-hR").arg(owner).arg(&folder), None)?.ok().map(drop);
    chown("12345:12345")?;
    let state = bundle.runtime(&["state", &bundle.id])?;
    let exec = bundle.exec(&[], "true")?;
    chown("0:0")?;
    ensure!(!state.success() && !exec.success(), "state or exec believed a file of user 12345");
    Ok(())
}
