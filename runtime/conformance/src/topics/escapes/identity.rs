//! Users, capabilities, numbers.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;

pub(super) fn numeric_user(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.rootfs().join("etc/passwd"), "1000:x:0:0:evil:/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n")?;
    bundle.started()?;
    let said = bundle.exec(&["--user", "1000"], "id -u")?.ok()?;
    ensure!(said.text() == "1000", "exec --user 1000 is uid {}", said.text());
    Ok(())
}

pub(super) fn no_ambient(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let said = bundle.run_script("awk '/^CapEff|^CapAmb/ {print $2}' /proc/self/status")?;
    ensure!(said == "0000000000000000\n0000000000000000", "{said}");
    Ok(())
}

pub(super) fn exec_cap(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said = bundle.exec(&["--cap", "CAP_NET_RAW"], "awk '/^CapInh/ {print $2}' /proc/self/status")?.ok()?;
    ensure!(said.text() == "0000000000000000", "CapInh is {}", said.text());
    Ok(())
}

pub(super) fn user_table(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let table: [(&str, Option<&str>); 11] = [
        ("1", Some("1 0")),
        ("1:2", Some("1 2")),
        ("01", None),
        (" 1", None),
        ("1x", None),
        ("1:", None),
        ("4294967295", None),
        ("4294967296", None),
        ("4294968296:0", None),
        ("-1", None),
        ("1:2x", None),
    ];
    for (user, want) in table {
        let option = format!("--user={user}");
        let output = bundle.exec(&[&option], "echo $(id -u) $(id -g)")?;
        // Leading zeros mean the same number to some; what must not happen is another number, or root.
        let accepted = match want {
            Some(want) => output.success() && output.text() == want,
            None => !output.success() || (user == "01" && output.text() == "1 0"),
        };
        ensure!(accepted, "--user {user:?} became {:?}", output.text());
    }
    Ok(())
}

pub(super) fn huge_mapping(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("user", None);
    // 4,000 lines are some 70,000 bytes: more than a 16-bit length says.
    let mappings: Vec<_> =
        (0..4000).map(|number| json!({"containerID": number * 2, "hostID": 100_000 + number * 2, "size": 1})).collect();
    bundle.set("/linux/uidMappings", json!(mappings)).set("/linux/gidMappings", json!(mappings));
    bundle.refused().map(drop)
}
