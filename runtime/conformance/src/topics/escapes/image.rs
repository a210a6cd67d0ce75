//! Images with links, fakes and traps where the runtime expects files of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::run;
use crate::console::Receiver;
use crate::context::Context;
use crate::suite::skip;
use crate::topics::checkpoint;

/// A folder on the host that no container may touch.
fn canary(bundle: &Bundle<'_>) -> Result<PathBuf> {
    let path = bundle.path.join("canary");
    fs::create_dir(&path)?;
    fs::write(path.join("ptmx"), "bird")?;
    Ok(path)
}

fn untouched(canary: &PathBuf) -> Result<()> {
    let names: Vec<_> = fs::read_dir(canary)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names == ["ptmx"], "the host's folder holds {names:?}");
    ensure!(fs::read_to_string(canary.join("ptmx"))? == "bird", "the host's file was changed");
    Ok(())
}

pub(super) fn name_service(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    // Whoever opens one of these waits for ever.
    for name in ["etc/nsswitch.conf", "etc/ld.so.cache", "etc/ld.so.preload"] {
        run(Command::new("mkfifo").arg(bundle.rootfs().join(name)), None)?.ok()?;
    }
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.run_script("true")?;
    bundle.set("/process/user", json!({"uid": 0, "gid": 0}));
    bundle.started()?;
    bundle.exec(&["--user", "1000"], "true")?.ok().map(drop)
}

pub(super) fn mount_on_proc(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir_all(bundle.path.join("data/self/attr"))?;
    let source = bundle.path.join("data").to_string_lossy().into_owned();
    bundle.without_mount("/proc").mount("bind", &source, "/proc", &["bind"]);
    bundle.refused()?;
    let mut bundle = context.bundle()?;
    bundle.without_mount("/proc").mount("tmpfs", "tmpfs", "/proc", &[]);
    bundle.refused().map(drop)
}

pub(super) fn mount_on_attr(context: &Context) -> Result<()> {
    for place in ["/proc/self/attr", "/proc/self", "/proc/thread-self", "/proc/sys", "/proc/1/fd"] {
        let mut bundle = context.bundle()?;
        bundle.mount("tmpfs", "tmpfs", place, &[]);
        bundle.refused().with_context(|| place.to_owned())?;
    }
    Ok(())
}

pub(super) fn link_farm(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    let (root, outside) = (bundle.rootfs(), canary.to_string_lossy().into_owned());
    let up = "../".repeat(30);
    let links = [
        ("hcfarm/absolute", outside.clone()),
        ("hcfarm/relative", format!("{up}{}", outside.trim_start_matches('/'))),
        ("hcfarm/chain1", "chain2".to_owned()),
        ("hcfarm/chain2", "/hcfarm/chain3".to_owned()),
        ("hcfarm/chain3", format!("{up}hcfarm/absolute")),
        ("hcfarm/self", "/proc/self/root".to_owned()),
        ("hcfarm/dots", format!("x/..//{up}./../{}", outside.trim_start_matches('/'))),
        ("hcfarm/cwd", "/proc/self/cwd".to_owned()),
    ];
    fs::create_dir(root.join("hcfarm"))?;
    for (name, target) in &links {
        symlink(target, root.join(name))?;
    }
    for (number, (name, _)) in links.iter().enumerate() {
        if !name.contains("self") && !name.contains("cwd") {
            bundle.mount("tmpfs", &format!("hcfarm{number}"), &format!("/{name}/made{number}"), &[]);
        }
    }
    let output = bundle.script("grep -c ' hcfarm[0-9] ' /proc/self/mountinfo").run()?;
    untouched(&canary)?;
    ensure!(!output.success() || output.text() == "6", "{} of 6 mounts are inside", output.text());
    // Magic links are no way either. The name is of this test alone, so finding it on the host is proof; what a broken
    // runtime made there stays, and the failure names it: this program removes nothing outside its work folder.
    let mut bundle = context.bundle()?;
    let name = format!("magic-{}", bundle.id);
    let outside = PathBuf::from("/").join(&name);
    ensure!(!fs::exists(&outside)?, "{} is there before the test", outside.display());
    symlink("/proc/self/root", bundle.rootfs().join("magic"))?;
    bundle.mount("tmpfs", "magic", &format!("/magic/{name}"), &[]);
    let output = bundle.script("grep -c ' magic ' /proc/self/mountinfo").run()?;
    ensure!(!fs::exists(&outside)?, "a magic link led to the host's root: {} was made", outside.display());
    ensure!(!output.success() || output.text() == "1", "the mount behind a magic link is not inside");
    Ok(())
}

fn is_link(context: &Context, name: &str) -> Result<()> {
    let bundle = context.bundle()?;
    let place = bundle.rootfs().join(name);
    fs::remove_dir(&place)?;
    fs::create_dir_all(bundle.rootfs().join("vol/x"))?;
    symlink("/vol/x", &place)?;
    bundle.refused().map(drop)
}

pub(super) fn proc_is_link(context: &Context) -> Result<()> {
    is_link(context, "proc")
}

pub(super) fn sys_is_link(context: &Context) -> Result<()> {
    is_link(context, "sys")
}

pub(super) fn unknown_bind_option(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    bundle.mount("bind", "data", "/mnt", &["bind", "surprise=1"]);
    let output = bundle.refused()?;
    ensure!(output.stderr.contains("surprise"), "the error does not name the option: {}", output.stderr);
    Ok(())
}

pub(super) fn source_nofollow(context: &Context) -> Result<()> {
    let features = run(context.command().arg("features"), None)?;
    if !features.stdout.contains("src-nofollow") {
        return Err(skip("the runtime has no option src-nofollow"));
    }
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    symlink("data", bundle.path.join("link"))?;
    let source = bundle.path.join("link").to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/mnt", &["bind", "src-nofollow"]);
    // Following it is the hole; mounting the link itself onto a folder cannot work.
    bundle.refused().map(drop)
}

pub(super) fn handler_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    symlink(canary.join("written"), bundle.rootfs().join(".krun_config.json"))?;
    bundle.set("/annotations", json!({"run.oci.handler": "krun"}));
    bundle.run()?;
    untouched(&canary)
}

pub(super) fn fake_null(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let dev = bundle.path.join("dev");
    fs::create_dir_all(dev.join("pts"))?;
    fs::create_dir_all(dev.join("shm"))?;
    fs::create_dir_all(dev.join("mqueue"))?;
    symlink("/proc/sys/kernel/core_pattern", dev.join("null"))?;
    let source = dev.to_string_lossy().into_owned();
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(place);
    }
    bundle.mount("bind", &source, "/dev", &["bind"]).set("/linux/maskedPaths", json!(["/proc/version"]));
    let output = bundle.script("cat /proc/version").run()?;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    ensure!(!output.success() || output.text() != pattern.trim(), "the masked file is core_pattern");
    ensure!(!output.success() || output.text().is_empty(), "the masked file reads {:?}", output.text());
    Ok(())
}

pub(super) fn fake_pts(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    // Another terminal, which the runtime can take for the container's: with one that is none it would fail later anyway.
    let other = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
    rustix::pty::grantpt(&other)?;
    rustix::pty::unlockpt(&other)?;
    let other_path = rustix::pty::ptsname(&other, Vec::new())?.into_string()?;
    let other_slave = fs::metadata(&other_path)?;
    let pts = bundle.path.join("pts");
    fs::create_dir(&pts)?;
    for number in 0..64 {
        symlink("/dev/other", pts.join(number.to_string()))?;
    }
    // A real multiplexer: it hands out terminals of the devpts that is mounted beside it.
    fs::create_dir(pts.join("pts"))?;
    run(Command::new("mknod").arg(pts.join("ptmx")).args(["c", "5", "2"]), None)?.ok()?;
    let source = pts.to_string_lossy().into_owned();
    bundle.without_mount("/dev/pts").mount("bind", &source, "/dev/pts", &["bind"]);
    bundle.mount("devpts", "devpts", "/dev/pts/pts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
    bundle.mount("bind", &other_path, "/dev/other", &["bind"]);
    bundle.set("/process/terminal", json!(true)).script("sleep 20").save()?;
    let (path, socket) = (bundle.path.to_string_lossy().into_owned(), receiver.path().to_string_lossy().into_owned());
    let create = bundle.runtime(&["create", "--bundle", &path, "--console-socket", &socket, &bundle.id])?;
    if !create.success() || !bundle.start()?.success() {
        return Ok(());
    }
    let pid = bundle.pid()?;
    for place in [format!("/proc/{pid}/root/dev/console"), format!("/proc/{pid}/fd/0")] {
        let console = fs::metadata(&place)?;
        ensure!(console.mode() & 0o170_000 == 0o020_000, "{place} is no character device: {:o}", console.mode());
        let same = (console.dev(), console.ino()) == (other_slave.dev(), other_slave.ino());
        ensure!(!same, "{place} is what a link below /dev/pts leads to");
    }
    Ok(())
}

pub(super) fn fake_proc_sys(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let fake = bundle.path.join("fake");
    fs::create_dir_all(fake.join("ipv4"))?;
    fs::write(fake.join("ipv4/ip_forward"), "untouched")?;
    let source = fake.to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/proc/sys/net", &["bind"]);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let output = bundle.run()?;
    let written = fs::read_to_string(fake.join("ipv4/ip_forward"))?;
    ensure!(written == "untouched", "the sysctl was written to the fake file");
    ensure!(!output.success(), "a mount on /proc/sys/net was accepted");
    Ok(())
}

fn dev_is_link(context: &Context, target: impl Fn(&str) -> String) -> Result<()> {
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(place);
    }
    fs::remove_dir(bundle.rootfs().join("dev"))?;
    symlink(target(&canary.to_string_lossy()), bundle.rootfs().join("dev"))?;
    bundle.run()?;
    untouched(&canary)
}

pub(super) fn dev_is_absolute_link(context: &Context) -> Result<()> {
    dev_is_link(context, str::to_owned)
}

pub(super) fn dev_is_relative_link(context: &Context) -> Result<()> {
    dev_is_link(context, |canary| format!("{}{}", "../".repeat(30), canary.trim_start_matches('/')))
}

pub(super) fn annotation_paths(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let file = bundle.path.join("made-by-annotation");
    let path = file.to_string_lossy().into_owned();
    bundle.set(
        "/annotations",
        json!({"run.oci.hooks.stdout": path, "run.oci.hooks.stderr": path, "run.oci.pidfd_receiver": path, "org.criu.config": path}),
    );
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "echo text; echo text >&2"]}));
    bundle.run()?;
    ensure!(!file.exists(), "an annotation made the runtime write to {}", file.display());
    Ok(())
}

pub(super) fn cwd_behind_link(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    symlink(&canary, bundle.rootfs().join("link"))?;
    bundle.set("/process/cwd", json!("/link/new"));
    bundle.run()?;
    untouched(&canary)
}

pub(super) fn fake_helpers(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    let script = format!("#!/bin/sh\necho ran > {}/ran\n", canary.display());
    for helper in
        ["newuidmap", "newgidmap", "criu", "passt", "pasta", "systemctl", "modprobe", "ip", "iptables", "mount"]
    {
        for folder in ["bin", "usr/bin", "."] {
            let place = bundle.rootfs().join(folder).join(helper);
            let _ = fs::remove_file(&place);
            fs::write(&place, &script)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        }
    }
    bundle.user_namespace()?;
    bundle.script("true").save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    run(command.current_dir(bundle.rootfs()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:."), None)?;
    untouched(&canary)
}

pub(super) fn console_is_link(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(place);
    }
    symlink(canary.join("console"), bundle.rootfs().join("dev/console"))?;
    bundle.set("/process/terminal", json!(true)).save()?;
    let (path, socket) = (bundle.path.to_string_lossy().into_owned(), receiver.path().to_string_lossy().into_owned());
    bundle.runtime(&["create", "--bundle", &path, "--console-socket", &socket, &bundle.id])?;
    untouched(&canary)
}

pub(super) fn null_is_link(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(place);
    }
    let victim = bundle.rootfs().join("victim");
    fs::write(&victim, "victim")?;
    std::os::unix::fs::chown(&victim, Some(7), Some(7))?;
    symlink("/victim", bundle.rootfs().join("dev/null"))?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).script("echo written; echo written >&2").save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let runtime = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).arg(runtime.get_program()).args(runtime.get_args());
    run(&mut command, None)?;
    let owner = fs::metadata(&victim)?.uid();
    ensure!(owner == 7, "the file now belongs to {owner}");
    ensure!(fs::read_to_string(&victim)? == "victim", "output was written to the file");
    Ok(())
}

pub(super) fn own_proc_tree(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    let fd = bundle.rootfs().join("proc/self/fd");
    fs::create_dir_all(&fd)?;
    fs::create_dir(bundle.rootfs().join("elsewhere"))?;
    for number in 0..40 {
        symlink("/elsewhere", fd.join(number.to_string()))?;
    }
    bundle.set("/root/readonly", json!(true));
    let output = bundle.script("touch /x 2>&1; true").run()?;
    ensure!(!output.success() || output.text().contains("Read-only"), "{:?}", output.text());
    ensure!(!bundle.rootfs().join("x").exists(), "the root is writable");
    Ok(())
}

pub(super) fn restore_mounts(context: &Context) -> Result<()> {
    checkpoint::needs_criu(context)?;
    let mut bundle = context.bundle()?;
    let canary = canary(&bundle)?;
    let data = bundle.path.join("data");
    fs::create_dir(&data)?;
    fs::create_dir(bundle.rootfs().join("a]:b"))?;
    symlink(&canary, bundle.rootfs().join("link"))?;
    bundle.mount("bind", &data.to_string_lossy(), "/a]:b", &["bind"]);
    bundle.started()?;
    let images = bundle.path.join("images").to_string_lossy().into_owned();
    // Either step may refuse; what must not be is a container with a mount that its configuration does not name.
    if !bundle.runtime(&["checkpoint", "--image-path", &images, &bundle.id])?.success() {
        return Ok(());
    }
    let path = bundle.path.to_string_lossy().into_owned();
    let restore = bundle.runtime(&["restore", "--detach", "--image-path", &images, "--bundle", &path, &bundle.id])?;
    if !restore.success() {
        return Ok(());
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid()?))?;
    if mounts.contains("canary") {
        bail!("a folder of the host is mounted: {mounts}");
    }
    Ok(())
}
