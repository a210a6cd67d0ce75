//! config-linux.md "User namespace mappings", config.md mounts' "uidMappings" and "gidMappings".

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use anyhow::{Result, ensure};
use serde_json::json;

use super::mounts::mount_tmpfs;
use crate::context::Context;
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("maps", "uidMappings and gidMappings are the maps of the new user namespace", maps),
    test("several-lines", "a map of several ranges", several_lines),
    test("root-is-not-root", "a file made by the container's root belongs to the mapped id outside", root_is_not_root),
    test("mappings-without-user-namespace", "mappings without a user namespace are an error", without_namespace),
    test("no-mappings", "a new user namespace without mappings is an error", no_mappings),
    test("mount-mapped", "mount uidMappings: the owners of files are shown as mapped", mount_mapped),
    test(
        "mount-mapped-write",
        "mount gidMappings: what is made through the mount has the unmapped owner on disk",
        mount_mapped_write,
    ),
    test("mount-idmap-option", "mount option idmap: as the container's own mappings", idmap_option),
    test("mount-ridmap-option", "mount option ridmap: also the mounts below", ridmap_option),
    test(
        "mount-mapping-without-user-namespace",
        "mapped mounts work without a user namespace of the container",
        mapped_without_userns,
    ),
    test("mount-mapping-not-bind", "a mapping on a file system that cannot have one is an error", mapping_on_proc),
    test("sysfs-and-cgroup", "a container with a user namespace and the host's network gets a read-only /sys", sysfs),
    test("device-nodes", "the default devices are there in a user namespace, bound from the host", device_nodes),
];

fn maps(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let said = bundle.run_script("cat /proc/self/uid_map /proc/self/gid_map")?;
    for line in said.lines() {
        ensure!(line.split_whitespace().eq(["0", "100000", "65536"]), "{said}");
    }
    Ok(())
}

fn several_lines(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let mappings = json!([
        {"containerID": 0, "hostID": 100_000, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 1},
        {"containerID": 1001, "hostID": 101_001, "size": 64535},
    ]);
    bundle.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings);
    let said = bundle.run_script("wc -l < /proc/self/uid_map; awk '$1 == 1000 {print $2}' /proc/self/uid_map")?;
    ensure!(said == "3\n300000", "{said}");
    Ok(())
}

fn root_is_not_root(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let said = bundle.run_script("id -u; touch /made")?;
    ensure!(said == "0", "{said}");
    let owner = fs::metadata(bundle.rootfs().join("made"))?.uid();
    ensure!(owner == 100_000, "{owner}");
    Ok(())
}

fn without_namespace(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    bundle.refused().map(drop)
}

fn no_mappings(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("user", None);
    bundle.refused().map(drop)
}

/// A folder with a file of user 7 and one of user 100007.
fn data(bundle: &crate::bundle::Bundle<'_>) -> Result<String> {
    let folder = bundle.path.join("data");
    fs::create_dir(&folder)?;
    for (name, owner) in [("low", 7), ("high", 100_007)] {
        fs::write(folder.join(name), "")?;
        chown(folder.join(name), Some(owner), Some(owner))?;
    }
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    Ok(folder.to_string_lossy().into_owned())
}

fn mapped(source: &str, options: &[&str]) -> serde_json::Value {
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    json!({"destination": "/mnt", "type": "bind", "source": source, "options": options,
        "uidMappings": mappings, "gidMappings": mappings})
}

fn mount_mapped(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let source = data(&bundle)?;
    bundle.push("/mounts", mapped(&source, &["bind"]));
    let said = bundle.run_script("stat -c %u /mnt/low")?;
    ensure!(said == "7", "{said}");
    Ok(())
}

fn mount_mapped_write(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let source = data(&bundle)?;
    bundle.push("/mounts", mapped(&source, &["bind"]));
    bundle.run_script("touch /mnt/made")?;
    let made = fs::metadata(bundle.path.join("data/made"))?;
    ensure!((made.uid(), made.gid()) == (0, 0), "{}:{}", made.uid(), made.gid());
    Ok(())
}

fn idmap_option(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let source = data(&bundle)?;
    bundle.mount("bind", &source, "/mnt", &["bind", "idmap"]);
    let said = bundle.run_script("stat -c %u /mnt/low")?;
    ensure!(said == "7", "{said}");
    Ok(())
}

fn ridmap_option(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let source = data(&bundle)?;
    let below = bundle.path.join("data/below");
    fs::create_dir(&below)?;
    mount_tmpfs(&below)?;
    fs::write(below.join("low"), "")?;
    chown(below.join("low"), Some(7), Some(7))?;
    bundle.mount("bind", &source, "/mnt", &["rbind", "ridmap"]);
    bundle.script("stat -c %u /mnt/low /mnt/below/low");
    let output = bundle.run()?;
    if !output.success() && !tmpfs_can_be_mapped()? {
        return Err(skip("a tmpfs cannot be mapped before Linux 6.3"));
    }
    let output = output.ok()?;
    let said = output.text();
    ensure!(said == "7\n7", "{said}");
    Ok(())
}

fn tmpfs_can_be_mapped() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    Ok((numbers.next(), numbers.next()) >= (Some(6), Some(3)))
}

fn mapped_without_userns(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = data(&bundle)?;
    bundle.push("/mounts", mapped(&source, &["bind"]));
    let said = bundle.run_script("stat -c %u /mnt/low")?;
    ensure!(said == "100007", "{said}");
    Ok(())
}

fn mapping_on_proc(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let mut mount = mapped("proc", &[]);
    mount["type"] = json!("proc");
    bundle.push("/mounts", mount);
    bundle.refused().map(drop)
}

fn sysfs(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?.without_namespace("network");
    bundle.without_mount("/sys").without_mount("/sys/fs/cgroup");
    bundle.mount("bind", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    let said = bundle.run_script("ls -d /sys/class; touch /sys/x 2>&1; true")?;
    ensure!(said.contains("/sys/class") && !bundle.rootfs().join("sys/x").exists(), "{said}");
    Ok(())
}

fn device_nodes(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    let said =
        bundle.run_script("stat -c '%F %t:%T' /dev/null; echo x > /dev/null && head -c 4 /dev/zero | od -An -tx1")?;
    ensure!(said.starts_with("character special file 1:3") && said.contains("00 00 00 00"), "{said}");
    Ok(())
}
