//! features.md, features-linux.md.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("versions", "ociVersionMin and ociVersionMax MUST be set", versions),
    test("hooks", "hooks: the recognized names of hooks", hooks),
    test("mount-options", "mountOptions: the recognized names of mount options", mount_options),
    test("namespaces", "linux.namespaces: the recognized names", namespaces),
    test("capabilities", "linux.capabilities: the recognized names", capabilities),
    test("cgroup", "linux.cgroup: v1, v2, systemd, systemdUser, rdma", cgroup),
    test("seccomp", "linux.seccomp: actions, operators, archs, knownFlags, supportedFlags", seccomp),
    test("security-modules", "linux.apparmor and linux.selinux", security_modules),
    test("extensions", "linux.intelRdt, linux.mountExtensions.idmap, linux.netDevices", extensions),
    test("unsafe-annotations", "potentiallyUnsafeConfigAnnotations is a list", annotations),
];

fn features(context: &Context) -> Result<Value> {
    let output = run(context.command().arg("features"), None)?.ok()?;
    serde_json::from_str(&output.stdout).context("features printed no JSON")
}

fn all_in(list: &Value, wanted: &[&str]) -> Result<()> {
    let list = list.as_array().with_context(|| format!("{list} is no list"))?;
    for want in wanted {
        ensure!(list.iter().any(|one| one == want), "no {want}");
    }
    Ok(())
}

fn versions(context: &Context) -> Result<()> {
    let features = features(context)?;
    for key in ["ociVersionMin", "ociVersionMax"] {
        ensure!(features[key].as_str().is_some_and(|version| version.starts_with("1.")), "{key}: {}", features[key]);
    }
    Ok(())
}

fn hooks(context: &Context) -> Result<()> {
    let wanted = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    all_in(&features(context)?["hooks"], &wanted)
}

fn mount_options(context: &Context) -> Result<()> {
    let wanted = [
        "bind",
        "rbind",
        "ro",
        "rro",
        "nosuid",
        "rnosuid",
        "nodev",
        "noexec",
        "noatime",
        "relatime",
        "strictatime",
        "rshared",
        "rslave",
        "rprivate",
        "runbindable",
        "tmpcopyup",
        "nosymfollow",
    ];
    all_in(&features(context)?["mountOptions"], &wanted)
}

fn namespaces(context: &Context) -> Result<()> {
    all_in(
        &features(context)?["linux"]["namespaces"],
        &["cgroup", "ipc", "mount", "network", "pid", "user", "uts", "time"],
    )
}

fn capabilities(context: &Context) -> Result<()> {
    all_in(&features(context)?["linux"]["capabilities"], &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"])
}

fn cgroup(context: &Context) -> Result<()> {
    let features = features(context)?;
    for key in ["v1", "v2", "systemd", "systemdUser", "rdma"] {
        ensure!(features["linux"]["cgroup"][key].is_boolean(), "no {key} in {}", features["linux"]["cgroup"]);
    }
    Ok(())
}

fn seccomp(context: &Context) -> Result<()> {
    let features = features(context)?;
    let seccomp = &features["linux"]["seccomp"];
    ensure!(seccomp["enabled"] == true, "{seccomp}");
    all_in(&seccomp["actions"], &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY"])?;
    all_in(&seccomp["operators"], &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"])?;
    all_in(&seccomp["archs"], &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])?;
    all_in(&seccomp["knownFlags"], &["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])?;
    all_in(&seccomp["supportedFlags"], &["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])
}

fn security_modules(context: &Context) -> Result<()> {
    let features = features(context)?;
    for key in ["apparmor", "selinux"] {
        ensure!(features["linux"][key]["enabled"].is_boolean(), "{key}: {}", features["linux"][key]);
    }
    Ok(())
}

fn extensions(context: &Context) -> Result<()> {
    let features = features(context)?;
    ensure!(features["linux"]["intelRdt"]["enabled"].is_boolean(), "intelRdt: {}", features["linux"]["intelRdt"]);
    ensure!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean(),
        "idmap: {}",
        features["linux"]["mountExtensions"]
    );
    ensure!(features["linux"]["netDevices"]["enabled"].is_boolean(), "netDevices: {}", features["linux"]["netDevices"]);
    Ok(())
}

fn annotations(context: &Context) -> Result<()> {
    let features = features(context)?;
    ensure!(
        features["potentiallyUnsafeConfigAnnotations"].is_array(),
        "{}",
        features["potentiallyUnsafeConfigAnnotations"]
    );
    Ok(())
}
