//! What the runtime's own processes leave open, and who can see it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::{Output, run};
use crate::context::Context;

/// Looks at every process of the pid namespace and notes those whose program is not busybox, when it can see that.
const WATCH: &str = "touch /watching; while :; do for p in /proc/[0-9]*; do \
    exe=$(readlink $p/exe) || continue; \
    case $exe in /bin/busybox|'') ;; *) echo \"$p $exe $(ls $p/fd 2>/dev/null | tr '\\n' ' ')\" >> /seen ;; esac; \
    done; done 2>/dev/null";

fn watched<'a>(context: &'a Context, entries: u32) -> Result<(Bundle<'a>, String)> {
    let mut bundle = context.bundle()?;
    bundle.script(WATCH);
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for_file(&bundle.rootfs().join("watching"), |_| bundle.rootfs().join("watching").exists())?;
    for _ in 0..entries {
        bundle.runtime(&["exec", &bundle.id, "true"])?.ok()?;
    }
    bundle.kill("KILL")?.ok()?;
    let seen = fs::read_to_string(bundle.rootfs().join("seen")).unwrap_or_default();
    Ok((bundle, seen))
}

pub(super) fn entering_process(context: &Context) -> Result<()> {
    let (_bundle, seen) = watched(context, 60)?;
    ensure!(
        seen.is_empty(),
        "the container saw into {} entering processes: {}",
        seen.lines().count(),
        seen.lines().next().unwrap_or("")
    );
    Ok(())
}

pub(super) fn joined_pid_namespace(context: &Context) -> Result<()> {
    let mut first = context.bundle()?;
    first.script(WATCH);
    first.created()?;
    first.start()?.ok()?;
    first.wait_for_file(&first.rootfs().join("watching"), |_| first.rootfs().join("watching").exists())?;
    let path = format!("/proc/{}/ns/pid", first.pid()?);
    for _ in 0..20 {
        let mut second = context.bundle()?;
        second.namespace("pid", Some(&path));
        second.output()?;
    }
    let seen = fs::read_to_string(first.rootfs().join("seen")).unwrap_or_default();
    ensure!(seen.is_empty(), "the first container saw into the second's init: {}", seen.lines().next().unwrap_or(""));
    Ok(())
}

pub(super) fn own_binary(context: &Context) -> Result<()> {
    // A copy, so that a runtime with the hole is not harmed.
    let copy = context.work.join(format!("copy-{}", context.unique()));
    fs::copy(&context.runtime, &copy)?;
    let before = fs::read(&copy)?;
    let mut bundle = context.bundle()?;
    bundle.program("evil", b"#!/proc/self/exe\n")?;
    bundle.script(
        "touch /watching; while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in /bin/busybox|'') ;; *) \
         ( exec 3< $p/exe && i=0; while [ $i -lt 50 ]; do i=$((i+1)); \
           if dd if=/dev/null of=/proc/self/fd/3 conv=notrunc 2>/dev/null; then echo hole > /hole; fi; done ) 2>/dev/null & ;; \
         esac; done; done 2>/dev/null",
    );
    bundle.save()?;
    let root = context.work.join("state");
    let call = |args: &[&str]| -> Result<Output> {
        let mut command = Command::new(&copy);
        run(command.arg("--root").arg(&root).args(&context.options).args(args).current_dir(&bundle.path), None)
    };
    call(&["create", &bundle.id])?.ok()?;
    call(&["start", &bundle.id])?.ok()?;
    bundle.wait_for_file(&bundle.rootfs().join("watching"), |_| bundle.rootfs().join("watching").exists())?;
    for _ in 0..15 {
        call(&["exec", &bundle.id, "/proc/self/exe"])?;
        call(&["exec", &bundle.id, "/evil"])?;
        call(&["exec", &bundle.id, "true"])?;
    }
    bundle.kill("KILL")?.ok()?;
    ensure!(!bundle.rootfs().join("hole").exists(), "the container opened the runtime's binary for writing");
    ensure!(fs::read(&copy)? == before, "the runtime's binary has changed");
    Ok(())
}

pub(super) fn abstract_sockets(context: &Context) -> Result<()> {
    let names = || -> Result<BTreeSet<String>> {
        let text = fs::read_to_string("/proc/net/unix")?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(7))
            .filter(|name| name.starts_with('@'))
            .map(str::to_owned)
            .collect())
    };
    let before = names()?;
    let mut bundles = Vec::new();
    for _ in 0..3 {
        let mut bundle = context.bundle()?;
        bundle.without_namespace("network");
        bundle.started()?;
        bundles.push(bundle);
    }
    let after = names()?;
    let new: Vec<&String> = after.difference(&before).collect();
    ensure!(new.is_empty(), "{new:?}");
    Ok(())
}

pub(super) fn cwd_by_descriptor(context: &Context) -> Result<()> {
    for number in 3..20 {
        let mut bundle = context.bundle()?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}"))).script("pwd; ls -a . ..").save()?;
        let path = bundle.path.to_string_lossy().into_owned();
        let runtime = bundle.command(&["run", "--bundle", &path, &bundle.id]);
        let output = with_open_root(&runtime)?;
        ensure!(!output.success(), "cwd /proc/self/fd/{number} shows {:?}", output.text());
    }
    Ok(())
}

pub(super) fn exec_cwd_by_descriptor(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let runtime = bundle.command(&["exec", "--cwd", &cwd, &bundle.id, "sh", "-c", "pwd; ls -a . .."]);
        let output = with_open_root(&runtime)?;
        ensure!(!output.success(), "cwd {cwd} shows {:?}", output.text());
    }
    Ok(())
}

/// Runs the command with descriptors 7 and 9 open on folders of the host.
fn with_open_root(runtime: &Command) -> Result<Output> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" 7< / 9< /sys/fs/cgroup", "sh"])
        .arg(runtime.get_program())
        .args(runtime.get_args());
    run(&mut command, None)
}

pub(super) fn caller_descriptors(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("touch /up; sleep 5").save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let host = fs::metadata("/")?;
    for args in [vec!["create", "--bundle", &path, &bundle.id], vec!["start", &bundle.id]] {
        with_open_root(&bundle.command(&args))?.ok()?;
    }
    // Until its program runs, init has descriptors of its own open for a moment.
    let up = bundle.rootfs().join("up");
    bundle.wait_for_file(&up, |_| up.exists())?;
    let pid = bundle.pid()?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = fs::metadata(entry.path()).with_context(|| format!("descriptor {number}"))?;
        ensure!((target.dev(), target.ino()) != (host.dev(), host.ino()), "descriptor {number} is the host's root");
        ensure!(
            ["0", "1", "2"].contains(&number.as_str()),
            "descriptor {number} is open: {:?}",
            fs::read_link(entry.path())
        );
    }
    Ok(())
}
