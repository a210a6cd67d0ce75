//! Checkpoint and restore by CRIU, with the options that engines pass.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::{Output, patience, run};
use crate::console::{Receiver, read_until};
use crate::context::{Cgroups, Context};
use crate::probe;
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("round-trip", "checkpoint ends the container, restore goes on where it was", round_trip),
    test("leave-running", "--leave-running: the container runs on", leave_running),
    test("pre-dump", "--pre-dump and --parent-path: memory first, the rest later", pre_dump),
    test("work-path", "--work-path: CRIU's log is there, not beside the image", work_path),
    test("tcp-established", "--tcp-established: an open connection is restored", tcp_established),
    test(
        "file-locks",
        "--file-locks: without it locks are an error that quotes CRIU, with it they are restored",
        file_locks,
    ),
    test("terminal", "a container with a terminal gets a new one over --console-socket", terminal),
    test("bind-mount", "a bind mount shows what its source shows at the restore", bind_mount),
    test("bind-mount-symlink", "a bind mount whose destination is a symlink in the image", bind_mount_symlink),
    test("unknown-mount", "restore mounts nothing of the host that the configuration does not name", unknown_mount),
    test("user-namespace", "a container in a user namespace", user_namespace),
    test("joined-network", "a network namespace by path is joined again, not restored", joined_network),
    test("empty-network", "--empty-ns network: the network namespace is made empty, for a hook to fill", empty_network),
    test("paused", "a paused container can be saved", paused),
    test("cgroup", "the restored processes are in the container's cgroup, under its limits", cgroup),
    test("sub-cgroup", "--manage-cgroups-mode soft: a group below the container's is made again", sub_cgroup),
    test("cgroups-ignored", "--manage-cgroups-mode ignore", cgroups_ignored),
    test("hooks", "createRuntime and poststart hooks run at a restore", hooks),
    test("pid-file", "restore --pid-file", pid_file),
    test("foreground", "restore without --detach gives the exit status", foreground),
    test("failed-restore", "a restore without an image is an error that leaves nothing", failed_restore),
];

/// Skips where CRIU cannot work, or the runtime has no use for it.
pub(super) fn needs_criu(context: &Context) -> Result<()> {
    static WORKS: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let works = WORKS.get_or_init(|| match run(Command::new("criu").arg("check"), None) {
        Err(_) => Err("criu is not installed".to_owned()),
        Ok(check) if check.success() => Ok(()),
        Ok(check) => Err(format!("criu does not work here: {}", check.stderr.lines().last().unwrap_or("no word"))),
    });
    works.clone().map_err(skip)?;
    let known = run(context.command().args(["checkpoint", "--help"]), None)?;
    if known.success() { Ok(()) } else { Err(skip("the runtime has no checkpoint")) }
}

/// A container that counts in `/count`.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; usleep 20000; done";

fn counting<'a>(context: &'a Context, change: impl FnOnce(&mut Bundle<'a>) -> Result<()>) -> Result<Bundle<'a>> {
    needs_criu(context)?;
    let mut bundle = context.bundle()?;
    bundle.script(COUNT);
    change(&mut bundle)?;
    bundle.silent()?;
    counts_beyond(&bundle, 2)?;
    Ok(bundle)
}

fn plain(_: &mut Bundle<'_>) -> Result<()> {
    Ok(())
}

fn count(bundle: &Bundle<'_>) -> u32 {
    let text = fs::read_to_string(bundle.rootfs().join("count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Waits until the count is above a number, and still near it: a container that began anew would count from 1.
fn counts_beyond(bundle: &Bundle<'_>, number: u32) -> Result<()> {
    let path = bundle.rootfs().join("count");
    bundle.wait_for_file(&path, |text| text.trim().parse::<u32>().is_ok_and(|count| count > number)).map(drop)
}

fn images(bundle: &Bundle<'_>) -> PathBuf {
    bundle.path.join("images")
}

fn checkpoint(bundle: &Bundle<'_>, options: &[&str]) -> Result<Output> {
    let images = images(bundle).to_string_lossy().into_owned();
    let mut args = vec!["checkpoint", "--image-path", &images];
    args.extend_from_slice(options);
    args.push(&bundle.id);
    bundle.runtime(&args)
}

fn restore(bundle: &Bundle<'_>, options: &[&str]) -> Result<Output> {
    bundle.save()?;
    let (images, path) = (images(bundle).to_string_lossy().into_owned(), bundle.path.to_string_lossy().into_owned());
    let mut args = vec!["restore", "--detach", "--image-path", &images, "--bundle", &path];
    args.extend_from_slice(options);
    args.push(&bundle.id);
    bundle.runtime(&args)
}

/// Saves and restores a container; it must go on counting where it was.
fn again(bundle: &Bundle<'_>, options: &[&str]) -> Result<()> {
    checkpoint(bundle, options)?.ok().context("checkpoint")?;
    let before = count(bundle);
    restore(bundle, options)?.ok().context("restore")?;
    bundle.wait_for("running")?;
    counts_beyond(bundle, before)
}

fn round_trip(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    let pid = bundle.pid()?;
    checkpoint(&bundle, &[])?.ok().context("checkpoint")?;
    ensure!(!Path::new(&format!("/proc/{pid}/cwd/bin")).exists(), "its process is still there");
    ensure!(images(&bundle).join("inventory.img").exists(), "no image");
    let before = count(&bundle);
    restore(&bundle, &[])?.ok().context("restore")?;
    bundle.wait_for("running")?;
    counts_beyond(&bundle, before)?;
    let said = bundle.exec(&[], "cat /proc/1/comm; hostname")?.ok()?;
    ensure!(said.text() == "sh\nconformance", "{:?}", said.text());
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

fn leave_running(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    let pid = bundle.pid()?;
    checkpoint(&bundle, &["--leave-running"])?.ok()?;
    ensure!(bundle.pid()? == pid && bundle.state()?["status"] == "running", "{}", bundle.state()?);
    counts_beyond(&bundle, count(&bundle))
}

fn pre_dump(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    let first = bundle.path.join("first").to_string_lossy().into_owned();
    let pre = bundle.runtime(&["checkpoint", "--pre-dump", "--image-path", &first, &bundle.id])?;
    if pre.stderr.contains("not supported") || pre.stderr.contains("MemTrack") || pre.stderr.contains("mem-track") {
        return Err(skip("this kernel does not tell which memory has changed"));
    }
    pre.ok().context("pre-dump")?;
    ensure!(bundle.state()?["status"] == "running", "{}", bundle.state()?);
    ensure!(!checkpoint(&bundle, &["--parent-path", "../none"])?.success(), "a parent that is not there is taken");
    checkpoint(&bundle, &["--parent-path", "../first"])?.ok().context("checkpoint")?;
    ensure!(images(&bundle).join("parent").exists(), "the image does not add to the first one");
    let before = count(&bundle);
    restore(&bundle, &[])?.ok().context("restore")?;
    counts_beyond(&bundle, before)
}

fn work_path(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    let work = bundle.path.join("work");
    checkpoint(&bundle, &["--work-path", &work.to_string_lossy()])?.ok()?;
    ensure!(work.join("dump.log").exists(), "no log in the work folder");
    ensure!(!images(&bundle).join("dump.log").exists(), "the log is beside the image");
    Ok(())
}

fn tcp_established(context: &Context) -> Result<()> {
    let talk = "sleep 1000 | nc -l -p 77 & sleep 1000 | sh -c 'until nc 127.0.0.1 77; do usleep 50000; done' &";
    let bundle = counting(context, |bundle| {
        bundle.script(&format!("ip link set lo up; {talk} {COUNT}"));
        bundle.push("/process/capabilities/effective", json!("CAP_NET_ADMIN"));
        bundle.push("/process/capabilities/permitted", json!("CAP_NET_ADMIN"));
        bundle.push("/process/capabilities/bounding", json!("CAP_NET_ADMIN"));
        Ok(())
    })?;
    let sockets =
        |bundle: &Bundle<'_>| Ok::<_, anyhow::Error>(fs::read_to_string(format!("/proc/{}/net/tcp", bundle.pid()?))?);
    // 01 is ESTABLISHED; port 77 is 4D.
    let connected = |text: &str| text.lines().any(|line| line.contains(":004D") && line.contains(" 01 "));
    let deadline = Instant::now() + patience();
    while !connected(&sockets(&bundle)?) {
        ensure!(Instant::now() < deadline, "no connection to save: {}", sockets(&bundle)?);
    }
    let refused = checkpoint(&bundle, &[])?;
    ensure!(!refused.success(), "a connection was saved unasked");
    again(&bundle, &["--tcp-established"])?;
    let text = sockets(&bundle)?;
    ensure!(connected(&text), "the connection is gone: {text}");
    Ok(())
}

/// Number of flock(2), and its LOCK_EX.
const FLOCK: u64 = 73;
const EXCLUSIVE: u64 = 2;

fn file_locks(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        // The lock is the open file's: it outlives the program that took it.
        bundle.program("bin/take", &probe::call(FLOCK, &[9, EXCLUSIVE]))?;
        bundle.script(&format!("exec 9>/lock; take && {COUNT}"));
        Ok(())
    })?;
    let refused = checkpoint(&bundle, &[])?;
    ensure!(!refused.success(), "a lock was saved unasked");
    ensure!(refused.stderr.contains("lock"), "CRIU's word is not in the error: {}", refused.stderr);
    ensure!(bundle.state()?["status"] == "running", "the container did not survive: {}", bundle.state()?);
    again(&bundle, &["--file-locks"])?;
    let taken = run(Command::new("flock").arg("--nonblock").arg(bundle.rootfs().join("lock")).arg("true"), None)?;
    ensure!(!taken.success(), "the lock is not held any more");
    Ok(())
}

fn master(receiver: &Receiver) -> Result<OwnedFd> {
    receiver.receive()?.1.pop().context("no descriptor came")
}

fn terminal(context: &Context) -> Result<()> {
    needs_criu(context)?;
    let mut bundle = context.bundle()?;
    bundle.script("while read line; do echo heard $line; done").set("/process/terminal", json!(true)).save()?;
    let receiver = Receiver::new()?;
    let socket = receiver.path().to_string_lossy().into_owned();
    let path = bundle.path.to_string_lossy().into_owned();
    bundle.runtime(&["create", "--bundle", &path, "--console-socket", &socket, &bundle.id])?.ok()?;
    let first = master(&receiver)?;
    bundle.start()?.ok()?;
    fs::File::from(first.try_clone()?).write_all(b"one\n")?;
    read_until(&first, "heard one")?;
    checkpoint(&bundle, &["--shell-job"])?.ok().context("checkpoint")?;
    drop(first);
    restore(&bundle, &["--shell-job", "--console-socket", &socket])?.ok().context("restore")?;
    let second = master(&receiver)?;
    fs::File::from(second.try_clone()?).write_all(b"two\n")?;
    let text = read_until(&second, "heard two")?;
    ensure!(text.contains("heard two"), "{text:?}");
    Ok(())
}

fn bind_mount(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        let source = bundle.path.join("data");
        fs::create_dir(&source)?;
        fs::write(source.join("file"), "first")?;
        fs::write(bundle.path.join("one"), "one")?;
        bundle.mount("bind", &source.to_string_lossy(), "/data", &["rbind", "ro"]);
        bundle.mount("bind", &bundle.path.join("one").to_string_lossy(), "/etc/one", &["bind"]);
        Ok(())
    })?;
    checkpoint(&bundle, &[])?.ok().context("checkpoint")?;
    fs::write(bundle.path.join("data/file"), "second")?;
    restore(&bundle, &[])?.ok().context("restore")?;
    let said = bundle.exec(&[], "cat /data/file /etc/one; touch /data/x 2>&1")?;
    ensure!(said.stdout.starts_with("secondone") && said.stdout.contains("Read-only"), "{:?}", said.stdout);
    Ok(())
}

fn bind_mount_symlink(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        fs::create_dir_all(bundle.rootfs().join("real/data"))?;
        symlink("/real/data", bundle.rootfs().join("data"))?;
        fs::create_dir(bundle.path.join("source"))?;
        fs::write(bundle.path.join("source/file"), "bound")?;
        bundle.mount("bind", &bundle.path.join("source").to_string_lossy(), "/data", &["bind"]);
        Ok(())
    })?;
    checkpoint(&bundle, &[])?.ok().context("checkpoint")?;
    restore(&bundle, &[])?.ok().context("restore")?;
    let said = bundle.exec(&[], "cat /real/data/file")?.ok()?;
    ensure!(said.text() == "bound", "{:?}", said.text());
    Ok(())
}

fn unknown_mount(context: &Context) -> Result<()> {
    let mut bundle = counting(context, |bundle| {
        fs::create_dir(bundle.path.join("secret"))?;
        bundle.mount("bind", &bundle.path.join("secret").to_string_lossy(), "/data", &["bind"]);
        Ok(())
    })?;
    checkpoint(&bundle, &[])?.ok().context("checkpoint")?;
    bundle.without_mount("/data");
    if restore(&bundle, &[])?.success() {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid()?))?;
        ensure!(!mounts.contains("/secret"), "a folder of the host is mounted: {mounts}");
    }
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| bundle.user_namespace().map(drop))?;
    // CRIU reads a part of the image while it maps the ids, sometimes before, sometimes after.
    for _ in 0..3 {
        again(&bundle, &[])?;
    }
    let said = bundle.exec(&[], "cat /proc/self/uid_map; head -c 1 /dev/zero | wc -c")?.ok()?;
    ensure!(said.text().contains("100000") && said.text().ends_with('1'), "{:?}", said.text());
    Ok(())
}

fn joined_network(context: &Context) -> Result<()> {
    needs_criu(context)?;
    let mut holder = context.bundle()?;
    holder.started()?;
    let network = format!("/proc/{}/ns/net", holder.pid()?);
    let bundle = counting(context, |bundle| {
        bundle.namespace("network", Some(&network));
        Ok(())
    })?;
    again(&bundle, &[])?;
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
    ensure!(of(bundle.pid()?)? == of(holder.pid()?)?, "it has another network namespace");
    Ok(())
}

fn empty_network(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    again(&bundle, &["--empty-ns", "network"])
}

fn paused(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    checkpoint(&bundle, &["--leave-running"])?.ok().context("checkpoint")?;
    ensure!(bundle.state()?["status"] == "paused", "{}", bundle.state()?);
    bundle.runtime(&["resume", &bundle.id])?.ok()?;
    counts_beyond(&bundle, count(&bundle))
}

fn cgroup(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        bundle.set("/linux/resources/pids", json!({"limit": 41}));
        Ok(())
    })?;
    let before = bundle.cgroup("pids", bundle.pid()?)?;
    again(&bundle, &[])?;
    let after = bundle.cgroup("pids", bundle.pid()?)?;
    ensure!(after == before, "{} instead of {}", after.display(), before.display());
    ensure!(fs::read_to_string(after.join("pids.max"))?.trim() == "41", "the limit is gone");
    let output = bundle.runtime(&["ps", "--format", "json", &bundle.id])?.ok()?;
    ensure!(output.stdout.contains(&bundle.pid()?.to_string()), "{}", output.stdout);
    Ok(())
}

fn sub_cgroup(context: &Context) -> Result<()> {
    if context.cgroups == Cgroups::V1 {
        return Err(skip("cgroups of version 1"));
    }
    let bundle = counting(context, |bundle| {
        bundle.without_mount("/sys/fs/cgroup");
        bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "rw"]);
        bundle.script(&format!("mkdir /sys/fs/cgroup/inner && echo 0 > /sys/fs/cgroup/inner/cgroup.procs; {COUNT}"));
        Ok(())
    })?;
    again(&bundle, &["--manage-cgroups-mode", "soft"])?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    ensure!(folder.ends_with("inner"), "{}", folder.display());
    Ok(())
}

fn cgroups_ignored(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    again(&bundle, &["--manage-cgroups-mode", "ignore"])
}

fn hooks(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        let told = bundle.path.join("told");
        let hook = |word: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> {}", told.display())]}]);
        bundle.set("/hooks", json!({"createRuntime": hook("createRuntime"), "poststart": hook("poststart")}));
        Ok(())
    })?;
    again(&bundle, &[])?;
    let told = fs::read_to_string(bundle.path.join("told"))?;
    ensure!(told == "createRuntime\npoststart\ncreateRuntime\npoststart\n", "{told:?}");
    Ok(())
}

fn pid_file(context: &Context) -> Result<()> {
    let bundle = counting(context, plain)?;
    checkpoint(&bundle, &[])?.ok()?;
    let file = bundle.path.join("pid");
    restore(&bundle, &["--pid-file", &file.to_string_lossy()])?.ok()?;
    let pid = fs::read_to_string(file)?;
    ensure!(pid.trim() == bundle.pid()?.to_string(), "{pid:?}");
    Ok(())
}

fn foreground(context: &Context) -> Result<()> {
    let bundle = counting(context, |bundle| {
        bundle.script(
            "i=0; while ! [ -e /end ]; do i=$((i+1)); echo $i > /new; mv /new /count; usleep 20000; done; exit 7",
        );
        Ok(())
    })?;
    checkpoint(&bundle, &[])?.ok()?;
    fs::write(bundle.rootfs().join("end"), "")?;
    let (images, path) = (images(&bundle).to_string_lossy().into_owned(), bundle.path.to_string_lossy().into_owned());
    let output = bundle.runtime(&["restore", "--image-path", &images, "--bundle", &path, &bundle.id])?;
    ensure!(output.code() == 7, "exit status {}: {}", output.code(), output.stderr);
    Ok(())
}

fn failed_restore(context: &Context) -> Result<()> {
    needs_criu(context)?;
    let bundle = context.bundle()?;
    fs::create_dir(images(&bundle))?;
    let output = restore(&bundle, &[])?;
    ensure!(!output.success(), "it was restored from nothing");
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "the container is there");
    Ok(())
}
