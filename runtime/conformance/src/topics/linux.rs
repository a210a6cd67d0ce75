//! config-linux.md: personality, memory policy, network devices, Intel RDT; config.md annotations.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("personality", "personality.domain LINUX32: uname is that of a 32-bit machine", personality),
    test("personality-unknown", "an unknown execution domain is an error", personality_unknown),
    test("personality-flags", "personality.flags: none is defined, so each is an error", personality_flags),
    case("memory-policy", "1.3 memoryPolicy: mode and nodes of the process", memory_policy, "interleave:0"),
    case("memory-policy-flags", "1.3 memoryPolicy: flags", memory_policy, "interleave=static:0 MPOL_F_STATIC_NODES"),
    test("memory-policy-flag-unknown", "1.3 memoryPolicy: an unknown flag is an error", memory_policy_flag_unknown),
    test("memory-policy-unknown", "1.3 memoryPolicy: an unknown mode is an error", memory_policy_unknown),
    test(
        "net-device",
        "1.3 netDevices: the device is moved to the container's network namespace, with its new name",
        net_device,
    ),
    test(
        "net-device-kept",
        "1.3 netDevices: permanent addresses of global scope MUST be preserved, the device MUST be set up",
        net_device_kept,
    ),
    test(
        "net-device-name-taken",
        "1.3 netDevices: if a device with the name exists inside, the runtime MUST generate an error",
        net_device_name_taken,
    ),
    test(
        "net-device-missing",
        "1.3 netDevices: the runtime MUST generate an error if the device does not exist",
        net_device_missing,
    ),
    test(
        "net-device-without-namespace",
        "1.3 netDevices: an error without a network namespace of the container",
        net_device_no_namespace,
    ),
    case(
        "intel-rdt-missing",
        "intelRdt: an error where the kernel does not have it",
        intel_rdt,
        r#"{"l3CacheSchema": "L3:0=f"}"#,
    ),
    case("intel-rdt-empty", "intelRdt: if it is set, no mounted resctrl MUST be an error", intel_rdt, "{}"),
    test("unknown-fields", "runtime.md extensibility: unknown properties MUST be ignored", unknown_fields),
    test("null-lists", "null stands for an absent list, as engines written in Go say it", null_lists),
];

fn personality(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    let said = bundle.run_script("uname -m")?;
    ensure!(said == "i686", "{said}");
    Ok(())
}

fn personality_flags(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}));
    bundle.refused().map(drop)
}

fn personality_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX16"}));
    bundle.refused().map(drop)
}

/// What the kernel shows, and flags.
fn memory_policy(context: &Context, row: &str) -> Result<()> {
    let mut words = row.split(' ');
    let shown = words.next().unwrap_or_default();
    let flags: Vec<&str> = words.collect();
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0"));
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": flags}));
    // What the runtime says of itself is no reason: only the kernel's own is.
    if !fs::exists("/proc/self/numa_maps")? {
        return Err(skip("this kernel has no NUMA"));
    }
    let maps = bundle.run_script("cat /proc/self/numa_maps")?;
    ensure!(
        maps.contains(&format!(" {shown} ")),
        "the policy is not in force: {}",
        maps.lines().next().unwrap_or_default()
    );
    Ok(())
}

fn memory_policy_flag_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0"));
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_WHATEVER"]}));
    bundle.refused().map(drop)
}

fn memory_policy_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0"));
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_WHATEVER", "nodes": "0"}));
    bundle.refused().map(drop)
}

/// A veth pair on the host; both ends go when one does.
struct Veth(String);

impl Veth {
    fn new(context: &Context) -> Result<Veth> {
        let name = format!("hc{}x{}", std::process::id() % 100_000, context.unique() % 1000);
        let made = run(
            Command::new("ip").args(["link", "add", &name, "type", "veth", "peer", "name", &format!("{name}p")]),
            None,
        );
        match made {
            Ok(output) if output.success() => Ok(Veth(name)),
            Ok(output) => Err(skip(format!("cannot make a veth device: {}", output.stderr.trim()))),
            Err(error) => Err(skip(format!("no ip(8): {error}"))),
        }
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["link", "del", &format!("{}p", self.0)]), None);
    }
}

fn net_device(context: &Context) -> Result<()> {
    let veth = Veth::new(context)?;
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0"));
    let name: &str = &veth.0;
    bundle.set("/linux/netDevices", json!({name: {"name": "inside0"}}));
    let said = bundle.run_script("ip -o link show inside0")?;
    ensure!(said.contains("inside0"), "{said}");
    Ok(())
}

fn net_device_kept(context: &Context) -> Result<()> {
    let veth = Veth::new(context)?;
    let name: &str = &veth.0;
    let ip = |words: &str| run(Command::new("ip").args(words.replace("DEV", name).split(' ')), None);
    ip("link set DEV mtu 1400 address 02:00:00:00:12:34 up")?.ok()?;
    ip("link set DEVp up")?.ok()?;
    ip("address add 198.51.100.7/24 dev DEV")?.ok()?;
    ip("address add 203.0.113.7/32 dev DEV scope link")?.ok()?;
    ip("address add 198.51.100.8/24 dev DEV valid_lft 1000 preferred_lft 1000")?.ok()?;
    let six = ip("-6 address add 2001:db8::7/64 dev DEV nodad")?.success();
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0")).set("/linux/netDevices", json!({name: {"name": "inside%d"}}));
    let said = bundle.run_script("ip -o link show inside0; ip -o address show inside0")?;
    ensure!(said.contains(",UP") && said.contains("mtu 1400") && said.contains("02:00:00:00:12:34"), "{said}");
    ensure!(said.contains("inet 198.51.100.7/24 "), "the permanent address is gone: {said}");
    ensure!(!six || said.contains("inet6 2001:db8::7/64 scope global"), "the address of version 6 is gone: {said}");
    ensure!(!said.contains("203.0.113.7"), "an address of the link has moved: {said}");
    ensure!(!said.contains("198.51.100.8"), "an address with an end has moved: {said}");
    Ok(())
}

fn net_device_name_taken(context: &Context) -> Result<()> {
    let veth = Veth::new(context)?;
    let name: &str = &veth.0;
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0")).set("/linux/netDevices", json!({name: {"name": "lo"}}));
    bundle.refused().map(drop)
}

fn net_device_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0")).set("/linux/netDevices", json!({"nosuchdev0": {}}));
    bundle.refused().map(drop)
}

fn net_device_no_namespace(context: &Context) -> Result<()> {
    let veth = Veth::new(context)?;
    let mut bundle = context.bundle()?;
    let name: &str = &veth.0;
    bundle.without_namespace("network").set("/linux/netDevices", json!({name: {"name": "inside0"}}));
    bundle.refused().map(drop)
}

fn intel_rdt(context: &Context, value: &str) -> Result<()> {
    if std::fs::exists("/sys/fs/resctrl/schemata")? {
        return Err(skip("this machine has it"));
    }
    let mut bundle = context.bundle()?;
    bundle.set("/linux/intelRdt", serde_json::from_str(value)?);
    bundle.refused().map(drop)
}

fn unknown_fields(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/org.example", json!({"a": 1})).set("/process/future", json!(true)).set("/linux/future", json!([]));
    bundle.run_script("true").map(drop)
}

fn null_lists(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for pointer in [
        "/hooks",
        "/annotations",
        "/process/rlimits",
        "/linux/devices",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/sysctl",
    ] {
        bundle.set(pointer, json!(null));
    }
    bundle.run_script("true").map(drop)
}
