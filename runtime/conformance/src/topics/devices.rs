//! config-linux.md "Devices", "Default Devices", "Device allowlist".

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, case, test};

pub(crate) const TESTS: &[Test] = &[
    case("default-null", "default device /dev/null", default_device, "null 1:3"),
    case("default-zero", "default device /dev/zero", default_device, "zero 1:5"),
    case("default-full", "default device /dev/full", default_device, "full 1:7"),
    case("default-random", "default device /dev/random", default_device, "random 1:8"),
    case("default-urandom", "default device /dev/urandom", default_device, "urandom 1:9"),
    case("default-tty", "default device /dev/tty", default_device, "tty 5:0"),
    test("default-usable", "the default devices can be used whatever the allowlist says", default_usable),
    test("listed", "devices: path, type, major, minor, fileMode, uid, gid", listed),
    test("listed-in-folder", "devices: folders on the way are made", in_folder),
    test("listed-fifo", "devices: type p is a FIFO", fifo),
    test("listed-unbuffered", "devices: type u is a character device", unbuffered),
    test("listed-unknown-type", "devices: an unknown type is an error", unknown_type),
    test("listed-twice", "the same device SHOULD NOT be listed twice: the last one is there", same_path),
    test("listed-default-again", "a listed device that is also a default one is no error", default_again),
    case(
        "listed-other-file",
        "devices: if a file at path does not match the requested device, the runtime MUST generate an error",
        other_file,
        "plain",
    ),
    case(
        "listed-other-device",
        "devices: if a file at path does not match the requested device, the runtime MUST generate an error",
        other_file,
        "device",
    ),
    test("deny-all", "allowlist: what is not allowed cannot be opened", deny_all),
    test("deny-empty-list", "GO-2022-0396: an empty allowlist allows nothing but the default devices", deny_empty),
    test("allow", "allowlist: type, major, minor and access of an allowed device", allow),
    test("allow-read-only", "allowlist: access r does not allow w", allow_read_only),
    test("allow-wildcard", "allowlist: a missing minor allows all of a major number", wildcard),
    test("order", "allowlist: entries are applied in order", order),
    test("outside-dev", "devices outside /dev are made where their path says", outside_dev),
];

/// Lets the process make and open device nodes.
const TRUSTED: [&str; 3] = ["bounding", "effective", "permitted"];

fn may_mknod(bundle: &mut crate::bundle::Bundle<'_>) {
    for set in TRUSTED {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    }
}

fn default_device(context: &Context, row: &str) -> Result<()> {
    let (name, numbers) = row.split_once(' ').unwrap_or((row, ""));
    let mut bundle = context.bundle()?;
    let said = bundle.run_script(&format!("stat -c '%F %t:%T %a %u:%g' /dev/{name}"))?;
    ensure!(said.starts_with(&format!("character special file {numbers} 666 0:")), "{said}");
    Ok(())
}

fn default_usable(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script(
        "echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; head -c 2 /dev/random | wc -c; \
         echo x 2>/dev/null > /dev/full || echo full",
    )?;
    ensure!(said == "2\n2\n2\nfull", "{said}");
    Ok(())
}

fn listed(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set(
        "/linux/devices",
        json!([{"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4}]),
    );
    let said = bundle.run_script("stat -c '%F %t:%T %a %u:%g' /dev/mine")?;
    ensure!(said == "character special file a:e5 640 3:4", "{said}");
    Ok(())
}

fn in_folder(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/devices", json!([{"path": "/dev/deep/er/mine", "type": "b", "major": 7, "minor": 200}]));
    let said = bundle.run_script("stat -c '%F %t:%T' /dev/deep/er/mine")?;
    ensure!(said == "block special file 7:c8", "{said}");
    Ok(())
}

fn fifo(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/devices", json!([{"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]));
    let said = bundle.run_script("stat -c '%F %a' /dev/pipe")?;
    ensure!(said == "fifo 600", "{said}");
    Ok(())
}

fn unbuffered(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/devices", json!([{"path": "/dev/mine", "type": "u", "major": 10, "minor": 229}]));
    let said = bundle.run_script("stat -c '%F %t:%T' /dev/mine")?;
    ensure!(said == "character special file a:e5", "{said}");
    Ok(())
}

fn unknown_type(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/devices", json!([{"path": "/dev/odd", "type": "x", "major": 1, "minor": 3}]));
    bundle.refused().map(drop)
}

fn same_path(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3});
    bundle.set("/linux/devices", json!([device, device]));
    bundle.run_script("test -c /dev/mine").map(drop)
}

fn default_again(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set(
        "/linux/devices",
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]),
    );
    let said = bundle.run_script("stat -c '%t:%T %a' /dev/null")?;
    ensure!(said == "1:3 666", "{said}");
    Ok(())
}

/// A loop control device is on every machine; opening it is harmless.
const LOOP_CONTROL: &str = r#"{"path": "/dev/mine", "type": "c", "major": 10, "minor": 237, "fileMode": 438}"#;

fn device_bundle(context: &Context) -> Result<crate::bundle::Bundle<'_>> {
    let mut bundle = context.bundle()?;
    let device: serde_json::Value = serde_json::from_str(LOOP_CONTROL)?;
    bundle.set("/linux/devices", json!([device]));
    Ok(bundle)
}

const OPEN: &str = "( : < /dev/mine && echo r ) 2>&1; ( : 3>> /dev/mine && echo w ) 2>&1; true";

fn deny_all(context: &Context) -> Result<()> {
    let mut bundle = device_bundle(context)?;
    let said = bundle.run_script(OPEN)?;
    ensure!(said.contains("Operation not permitted") && !said.contains("r\n") && !said.ends_with('w'), "{said}");
    Ok(())
}

pub(super) fn deny_empty(context: &Context) -> Result<()> {
    for resources in [json!({}), json!({"devices": []})] {
        let mut bundle = context.bundle()?;
        may_mknod(&mut bundle);
        bundle.set("/linux/resources", resources);
        // Making the node may be allowed, it is harmless; opening it is not.
        let said = bundle.run_script(
            "mknod /tmp/disk b 8 0; mknod /tmp/mem c 1 1; ( : < /tmp/disk ) 2>&1; ( : < /tmp/mem ) 2>&1; true",
        )?;
        ensure!(said.matches("not permitted").count() == 2, "{said}");
    }
    Ok(())
}

fn allow(context: &Context) -> Result<()> {
    let mut bundle = device_bundle(context)?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rw"}),
    );
    let said = bundle.run_script(OPEN)?;
    ensure!(said == "r\nw", "{said}");
    Ok(())
}

fn allow_read_only(context: &Context) -> Result<()> {
    let mut bundle = device_bundle(context)?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "r"}),
    );
    let said = bundle.run_script(OPEN)?;
    ensure!(said.starts_with("r\n") && said.contains("not permitted"), "{said}");
    Ok(())
}

fn wildcard(context: &Context) -> Result<()> {
    let mut bundle = device_bundle(context)?;
    bundle.push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 10, "access": "rwm"}));
    let said = bundle.run_script(OPEN)?;
    ensure!(said == "r\nw", "{said}");
    Ok(())
}

fn order(context: &Context) -> Result<()> {
    let mut bundle = device_bundle(context)?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rwm"}),
    );
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": false, "type": "c", "major": 10, "minor": 237, "access": "rwm"}),
    );
    let said = bundle.run_script(OPEN)?;
    ensure!(said.contains("not permitted"), "{said}");
    Ok(())
}

fn other_file(context: &Context, kind: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let there = bundle.rootfs().join("there");
    if kind == "plain" {
        fs::write(&there, "")?;
    } else {
        run(std::process::Command::new("mknod").arg(&there).args(["c", "1", "5"]), None)?.ok()?;
    }
    bundle.set("/linux/devices", json!([{"path": "/there", "type": "c", "major": 1, "minor": 3}]));
    bundle.refused().map(drop)
}

fn outside_dev(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/devices", json!([{"path": "/opt/null", "type": "c", "major": 1, "minor": 3}]));
    let output = bundle.script("stat -c '%t:%T' /opt/null").run()?;
    ensure!(!output.success() || output.text() == "1:3", "{}", output.text());
    ensure!(!fs::exists("/opt/null")?, "it was made on the host");
    Ok(())
}
