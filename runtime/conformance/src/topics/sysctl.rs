//! config-linux.md "Sysctl".

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("network", "sysctl: kernel parameters of the network namespace", network),
    test("slashes", "sysctl: a key with a slash first has dots as part of names", slashes),
    test("ipc", "sysctl: kernel parameters of the ipc namespace", ipc),
    test("uts", "sysctl: kernel parameters of the uts namespace", uts),
    test("user", "sysctl: limits of the user namespace", user),
    test("user-needs-namespace", "a limit of the host's user namespace is refused", user_needs_namespace),
    test(
        "needs-namespace",
        "a parameter of a namespace that the container shares with the host is refused",
        needs_namespace,
    ),
    test("not-namespaced", "a parameter of the whole machine is refused", not_namespaced),
    test("unknown", "a parameter that does not exist is an error", unknown),
    test("traversal", "a key cannot leave /proc/sys", traversal),
];

fn network(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "256"}));
    let said = bundle.run_script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn")?;
    ensure!(said == "1\n256", "{said}");
    Ok(())
}

fn slashes(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"net/ipv4/conf/lo/forwarding": "1"}));
    let said = bundle.run_script("cat /proc/sys/net/ipv4/conf/lo/forwarding")?;
    ensure!(said == "1", "{said}");
    Ok(())
}

fn ipc(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"kernel.msgmax": "12345", "fs.mqueue.msg_max": "7"}));
    let said = bundle.run_script("cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max")?;
    ensure!(said == "12345\n7", "{said}");
    Ok(())
}

fn uts(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"kernel.domainname": "example.org"}));
    let said = bundle.run_script("cat /proc/sys/kernel/domainname")?;
    ensure!(said == "example.org", "{said}");
    Ok(())
}

const USER_LIMIT: &str = "/proc/sys/user/max_uts_namespaces";

fn user(context: &Context) -> Result<()> {
    let before = fs::read_to_string(USER_LIMIT)?;
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?.set("/linux/sysctl", json!({"user.max_uts_namespaces": "17"}));
    let said = bundle.run_script(&format!("cat {USER_LIMIT}"));
    ensure!(fs::read_to_string(USER_LIMIT)? == before, "the host's value changed");
    let said = said?;
    ensure!(said == "17", "{said}");
    Ok(())
}

fn user_needs_namespace(context: &Context) -> Result<()> {
    let before = fs::read_to_string(USER_LIMIT)?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"user.max_uts_namespaces": before.trim()}));
    bundle.refused().map(drop)
}

fn needs_namespace(context: &Context) -> Result<()> {
    let path = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = fs::read_to_string(path)?;
    let mut bundle = context.bundle()?;
    bundle.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "33"}));
    let refused = bundle.refused();
    let after = fs::read_to_string(path)?;
    if after != before {
        fs::write(path, &before)?;
    }
    ensure!(after == before, "the host's value changed");
    refused.map(drop)
}

fn not_namespaced(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let value = fs::read_to_string("/proc/sys/vm/swappiness")?;
    bundle.set("/linux/sysctl", json!({"vm.swappiness": value.trim()}));
    bundle.refused().map(drop)
}

fn unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.no_such_thing": "1"}));
    bundle.refused().map(drop)
}

fn traversal(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for key in ["net/../vm/swappiness", "net/../../sysrq-trigger"] {
        bundle.set("/linux/sysctl", json!({key: "60"}));
        bundle.refused()?;
    }
    Ok(())
}
