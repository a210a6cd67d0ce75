//! config.md "Mounts" and "Root", config-linux.md "Default Filesystems", "Rootfs Mount Propagation".

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "root-readonly",
        "root.readonly: if true then the root filesystem MUST be read-only inside the container",
        root_readonly,
    ),
    test("root-writable", "root.readonly defaults to false", root_writable),
    test("root-relative", "root.path is either absolute or relative to the bundle", root_relative),
    test("root-missing", "a directory MUST exist at the path declared by root.path", root_missing),
    test("listed-order", "the runtime MUST mount entries in the listed order", listed_order),
    test("destination-made", "a missing destination is made, as directory or file after the source", destination_made),
    test("destination-symlink", "destination: a link is resolved inside the container's root", destination_symlink),
    test("source-relative", "source: for bind mounts, a path relative to the bundle", source_relative),
    test("bind-file", "type bind of a file", bind_file),
    test("bind-by-option", "a mount with option bind is a bind mount whatever its type says", bind_by_option),
    test("rbind", "rbind brings the mounts below the source, bind does not", rbind),
    test("source-missing", "a bind source that does not exist is an error", source_missing),
    test("unknown-type", "a file system type that does not exist is an error", unknown_type),
    test("tmpfs-data", "options: file system data such as size and mode reach the file system", tmpfs_data),
    test("tmpfs-keeps-mode", "a tmpfs without mode= takes the mode of the directory it covers", tmpfs_keeps_mode),
    test("tmpcopyup", "extension tmpcopyup: the tmpfs starts with what it covers", tmpcopyup),
    test("default-filesystems", "/proc, /sys, /dev/pts and /dev/shm are there when configured", default_filesystems),
    test(
        "dev-symlinks",
        "the runtime MUST make /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr if the source exists",
        dev_symlinks,
    ),
    test("dev-ptmx", "/dev/ptmx: a bind-mount or symlink of the container's /dev/pts/ptmx", dev_ptmx),
    test("cgroup-mount", "type cgroup shows the container's own cgroups", cgroup_mount),
    test("cgroup2-mount", "type: the file system to be mounted, cgroup2 beside version 1 too", cgroup2_mount),
    case("propagation-shared", "rootfsPropagation shared", propagation, "shared"),
    case("propagation-slave", "rootfsPropagation slave", propagation, "slave"),
    case("propagation-private", "rootfsPropagation private", propagation, "private"),
    case("propagation-unbindable", "rootfsPropagation unbindable", propagation, "unbindable"),
    case("propagation-rshared", "rootfsPropagation rshared", propagation, "rshared"),
    case("propagation-rslave", "rootfsPropagation rslave", propagation, "rslave"),
    case("propagation-rprivate", "rootfsPropagation rprivate", propagation, "rprivate"),
    test("propagation-unknown", "rootfsPropagation: any other value is an error", propagation_unknown),
    test("nothing-leaks", "no mount of the container is visible on the host", nothing_leaks),
];

fn root_readonly(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/root/readonly", json!(true));
    let said = bundle.run_script("touch /x 2>&1; touch /dev/shm/x && echo shm")?;
    ensure!(said.contains("Read-only") && said.contains("shm"), "{said:?}");
    Ok(())
}

fn root_writable(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.run_script("touch /x")?;
    ensure!(bundle.rootfs().join("x").exists(), "the file is not there");
    Ok(())
}

fn root_relative(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.run_script("true")?;
    let path = bundle.rootfs();
    bundle.set("/root/path", json!(path));
    bundle.run_script("true").map(drop)
}

fn root_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/root/path", json!("nowhere"));
    bundle.refused().map(drop)
}

fn listed_order(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "first", "/mnt", &["size=64k"]).mount("tmpfs", "second", "/mnt/inner", &["size=64k"]);
    bundle.mount("tmpfs", "third", "/tmp/inner", &["size=64k"]).mount("tmpfs", "fourth", "/tmp", &["size=64k"]);
    let said = bundle
        .run_script("grep -q ' /mnt/inner ' /proc/self/mountinfo && echo inner; test -e /tmp/inner || echo covered")?;
    ensure!(said == "inner\ncovered", "{said:?}");
    Ok(())
}

fn destination_made(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.path.join("file"), "text")?;
    bundle.mount("tmpfs", "tmpfs", "/made/deep/folder", &[]);
    bundle.mount("bind", "file", "/made/other/file", &["bind"]);
    let said = bundle.run_script("grep -q ' /made/deep/folder ' /proc/self/mountinfo && cat /made/other/file")?;
    ensure!(said == "text", "{said:?}");
    Ok(())
}

fn destination_symlink(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    symlink("/real", bundle.rootfs().join("link"))?;
    fs::create_dir(bundle.rootfs().join("real"))?;
    bundle.mount("tmpfs", "tmpfs", "/link/inner", &[]);
    let said = bundle.run_script("grep -c ' /real/inner ' /proc/self/mountinfo")?;
    ensure!(said == "1", "{said:?}");
    ensure!(!fs::exists("/real")?, "it was made on the host");
    Ok(())
}

fn source_relative(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    fs::write(bundle.path.join("data/file"), "here")?;
    bundle.mount("bind", "data", "/mnt", &["bind"]);
    let bundle_path = bundle.path.to_string_lossy().into_owned();
    bundle.script("cat /mnt/file").save()?;
    let mut command = bundle.command(&["run", "--bundle", &bundle_path, &bundle.id]);
    let output = crate::command::run(command.current_dir("/"), None)?.ok()?;
    ensure!(output.text() == "here", "{:?}", output.text());
    Ok(())
}

fn bind_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.path.join("file"), "text")?;
    fs::write(bundle.rootfs().join("etc/target"), "covered")?;
    let source = bundle.path.join("file").to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/etc/target", &["bind", "ro"]);
    let said = bundle.run_script("cat /etc/target; echo x > /etc/target || echo refused")?;
    ensure!(said == "textrefused", "{said:?}");
    Ok(())
}

fn bind_by_option(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    fs::write(bundle.path.join("data/file"), "here")?;
    let source = bundle.path.join("data").to_string_lossy().into_owned();
    bundle.mount("none", &source, "/one", &["bind"]).mount("", &source, "/two", &["rbind"]);
    let said = bundle.run_script("cat /one/file /two/file")?;
    ensure!(said == "herehere", "{said:?}");
    Ok(())
}

fn rbind(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = bundle.path.join("data");
    fs::create_dir_all(source.join("sub"))?;
    mount_tmpfs(&source.join("sub"))?;
    fs::write(source.join("sub/below"), "")?;
    let source = source.to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/plain", &["bind"]).mount("bind", &source, "/deep", &["rbind"]);
    let said = bundle.run_script("test -e /plain/sub/below || echo plain; test -e /deep/sub/below && echo deep")?;
    ensure!(said == "plain\ndeep", "{said:?}");
    Ok(())
}

/// A tmpfs on the host; the bundle's removal takes it away.
pub(super) fn mount_tmpfs(path: &std::path::Path) -> Result<()> {
    let empty = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", path, "tmpfs", empty, None).context("cannot mount a tmpfs on the host")
}

fn source_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("bind", "/no/such/source", "/mnt", &["bind"]);
    bundle.refused().map(drop)
}

fn unknown_type(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("nosuchfs", "none", "/mnt", &[]);
    bundle.refused().map(drop)
}

fn tmpfs_data(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &["size=64k", "mode=0711", "nr_inodes=10", "uid=7"]);
    let said = bundle.run_script("stat -c '%a %u' /mnt; grep ' /mnt ' /proc/self/mountinfo")?;
    ensure!(said.starts_with("711 7\n") && said.contains("size=64k") && said.contains("nr_inodes=10"), "{said:?}");
    Ok(())
}

fn tmpfs_keeps_mode(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let covered = bundle.rootfs().join("covered");
    fs::create_dir(&covered)?;
    fs::set_permissions(&covered, std::os::unix::fs::PermissionsExt::from_mode(0o1751))?;
    bundle.mount("tmpfs", "tmpfs", "/covered", &[]);
    let said = bundle.run_script("stat -c %a /covered")?;
    ensure!(said == "1751", "mode {said}");
    Ok(())
}

fn tmpcopyup(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let covered = bundle.rootfs().join("covered");
    fs::create_dir_all(covered.join("folder"))?;
    fs::write(covered.join("folder/file"), "text")?;
    symlink("folder/file", covered.join("link"))?;
    bundle.mount("tmpfs", "tmpfs", "/covered", &["tmpcopyup"]);
    let said = bundle.run_script(
        "cat /covered/link; echo more > /covered/new; grep -q ' /covered ' /proc/self/mountinfo && echo -tmpfs",
    )?;
    ensure!(said == "text-tmpfs", "{said:?}");
    ensure!(!covered.join("new").exists(), "a write went to the root file system");
    Ok(())
}

fn default_filesystems(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("awk '{print $3, $2}' /proc/mounts")?;
    for want in ["proc /proc", "sysfs /sys", "devpts /dev/pts", "tmpfs /dev/shm", "mqueue /dev/mqueue"] {
        ensure!(said.lines().any(|line| line == want), "no {want} in {said}");
    }
    Ok(())
}

fn dev_symlinks(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("for l in fd stdin stdout stderr; do readlink /dev/$l; done")?;
    ensure!(said == "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2", "{said:?}");
    Ok(())
}

fn dev_ptmx(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("stat -L -c '%t:%T' /dev/ptmx; test /dev/ptmx -ef /dev/pts/ptmx && echo same")?;
    ensure!(said == "5:2\nsame", "{said:?}");
    Ok(())
}

fn cgroup_mount(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said =
        bundle.run_script("cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; true")?;
    ensure!(said.lines().any(|line| line == "1"), "process 1 is not in the cgroup shown: {said:?}");
    Ok(())
}

fn cgroup2_mount(context: &Context) -> Result<()> {
    if !fs::exists("/sys/fs/cgroup/unified/cgroup.procs")? && !fs::exists("/sys/fs/cgroup/cgroup.procs")? {
        return Err(skip("this machine has no cgroups of version 2"));
    }
    let mut bundle = context.bundle()?;
    bundle.mount("cgroup2", "cgroup2", "/unified", &["ro"]);
    let said =
        bundle.run_script("awk '$5 == \"/unified\"' /proc/self/mountinfo; echo 1 > /unified/cgroup.procs; true")?;
    ensure!(said.contains(" - cgroup2 "), "{said}");
    ensure!(said.contains(" /unified ro"), "{said}");
    Ok(())
}

fn propagation(context: &Context, value: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/rootfsPropagation", json!(value));
    let said = bundle
        .run_script("grep ' / / \\| / rw' /proc/self/mountinfo | head -1; awk '$5 == \"/\"' /proc/self/mountinfo")?;
    let line = said.lines().last().context("no line for /")?;
    let holds = match value.trim_start_matches('r') {
        "shared" => line.contains(" shared:"),
        "slave" => !line.contains(" shared:"),
        "private" => !line.contains(" shared:") && !line.contains(" master:"),
        _ => line.contains(" unbindable"),
    };
    ensure!(holds, "{line}");
    Ok(())
}

fn propagation_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/rootfsPropagation", json!("everywhere"));
    bundle.refused().map(drop)
}

fn nothing_leaks(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "leaky", "/mnt", &[]);
    bundle.started()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path = bundle.path.to_string_lossy().into_owned();
    let ours: Vec<&str> = mounts.lines().filter(|line| line.contains(&path)).collect();
    ensure!(ours.is_empty(), "{ours:?}");
    Ok(())
}
