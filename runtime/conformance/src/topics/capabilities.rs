//! config.md "capabilities".

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, test};

const SETS: &str = "awk '/^Cap/ {print $2}' /proc/self/status";

pub(crate) const TESTS: &[Test] = &[
    test("root-sets", "effective, bounding and permitted are as configured", root_sets),
    test("none", "without capabilities the process has none", none),
    test("absent", "an absent capabilities object gives none", absent),
    test("inheritable-ambient", "inheritable and ambient are as configured, also for another user", ambient),
    test("user-without-ambient", "CVE-2016-8867: another user's process has no capability that is not ambient", user),
    test("all", "every capability of the kernel can be given", all),
    test(
        "ambient-not-inheritable",
        "an ambient capability outside the inheritable set is never given",
        ambient_not_inheritable,
    ),
    test(
        "unknown",
        "any value which cannot be mapped to a relevant kernel interface must be logged as a warning",
        unknown,
    ),
    test("bounding-limits-files", "the bounding set limits what root regains by execve", bounding),
];

/// Inheritable, permitted, effective, bounding, ambient.
fn sets(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect()
}

const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const AUDIT_WRITE: u64 = 1 << 29;

fn root_sets(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let got = sets(&bundle.run_script(SETS)?);
    let all = KILL | NET_BIND_SERVICE | AUDIT_WRITE;
    ensure!(got == [0, all, all, all, 0], "{got:x?}");
    Ok(())
}

fn none(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/capabilities", json!({}));
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got == [0, 0, 0, 0, 0], "{got:x?}");
    Ok(())
}

fn absent(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.unset("/process/capabilities");
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got == [0, 0, 0, 0, 0], "{got:x?}");
    Ok(())
}

fn ambient(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let list = json!(["CAP_KILL"]);
    for set in ["inheritable", "ambient", "permitted", "effective", "bounding"] {
        bundle.set(&format!("/process/capabilities/{set}"), list.clone());
    }
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got == [KILL; 5], "{got:x?}");
    Ok(())
}

fn user(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got.len() == 5 && got[0] == 0 && got[1] == 0 && got[2] == 0 && got[4] == 0, "{got:x?}");
    Ok(())
}

fn all(context: &Context) -> Result<()> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ours = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap_or_default();
    let ours = u64::from_str_radix(ours, 16)?;
    let possible: Vec<(usize, &str)> =
        NAMES.into_iter().enumerate().filter(|(number, _)| ours & (1 << number) != 0).collect();
    let mut bundle = context.bundle()?;
    let list: Vec<String> = possible.iter().map(|(_, name)| format!("CAP_{name}")).collect();
    for set in ["permitted", "effective", "bounding"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(list));
    }
    let want = possible.iter().fold(0_u64, |mask, (number, _)| mask | 1 << number);
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got == [0, want, want, want, 0], "{got:x?} instead of {want:x}");
    Ok(())
}

fn ambient_not_inheritable(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    let output = bundle.script(SETS).run()?;
    let got = sets(&output.stdout);
    ensure!(!output.success() || got[4] == 0, "CapAmb is {:x}", got[4]);
    Ok(())
}

fn unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/process/capabilities/bounding", json!("CAP_MAKE_COFFEE"));
    bundle.push("/process/capabilities/permitted", json!("CAP_MAKE_COFFEE"));
    let output = bundle.script(SETS).run()?;
    let got = sets(output.text());
    let all = KILL | NET_BIND_SERVICE | AUDIT_WRITE;
    ensure!(got == [0, all, all, all, 0], "{got:x?}");
    ensure!(output.stderr.contains("CAP_MAKE_COFFEE"), "no warning: {:?}", output.stderr);
    Ok(())
}

fn bounding(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for set in ["permitted", "effective"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!([]));
    }
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set("/process/capabilities/bounding", json!(["CAP_KILL"]));
    let got = sets(&bundle.run_script(SETS)?);
    ensure!(got.len() == 5 && got[3] == KILL && got[1] & !KILL == 0, "{got:x?}");
    Ok(())
}
