//! config.md "POSIX-platform User".

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("uid-gid", "uid and gid: the ids in the container namespace", uid_gid),
    test("additional-gids", "additionalGids: added to the process", additional_gids),
    test(
        "no-additional-gids",
        "without additionalGids the process has no groups of the runtime's caller",
        no_additional_gids,
    ),
    test(
        "keep-groups",
        "crun's annotation run.oci.keep_original_groups: the process has the groups of the runtime's caller",
        keep_groups,
    ),
    test("umask", "umask: the umask of the user", umask),
    test(
        "umask-unset",
        "umask: if unspecified, the umask should not be changed from the calling process' umask",
        umask_unset,
    ),
    test("home", "HOME, when it is not configured, is the home of the uid in the container's passwd file", home),
    test("stdio-owner", "a process of another user can reopen its standard output", stdio_owner),
    test("unmapped", "a uid that is not mapped in the user namespace is an error", unmapped),
    test("passwd-fifo", "a FIFO for /etc/passwd does not hold the start up", passwd_fifo),
];

fn uid_gid(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1234, "gid": 4321}));
    let said = bundle.run_script("awk '/^[UG]id/ {print $2, $3, $4, $5}' /proc/self/status")?;
    ensure!(said == "1234 1234 1234 1234\n4321 4321 4321 4321", "{said}");
    Ok(())
}

fn additional_gids(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [6, 5, 70000, 6]}));
    let said = bundle.run_script("awk '/^Groups/ {print $2, $3, $4, $5}' /proc/self/status")?;
    // Once each, although engines say some twice.
    ensure!(context.is("crun") || said.trim() == "5 6 70000", "{said}");
    Ok(())
}

fn no_additional_gids(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("awk '/^Groups/ {print NF}' /proc/self/status")?;
    ensure!(said == "1", "{said}");
    Ok(())
}

/// Podman sets it for `--group-add keep-groups`, with the image's groups still in the configuration.
fn keep_groups(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    bundle.set("/process/user/additionalGids", json!([5]));
    for mapped in [false, true] {
        if mapped {
            bundle.user_namespace()?;
        }
        bundle.script("awk '/^Groups/ {print $2, $3}' /proc/self/status").save()?;
        let runtime = bundle.command(&["run", &bundle.id]);
        let mut command = Command::new("setpriv");
        command.args(["--groups", "1234"]).arg(runtime.get_program()).args(runtime.get_args());
        if let Some(folder) = runtime.get_current_dir() {
            command.current_dir(folder);
        }
        let said = run(&mut command, None)?.ok()?;
        let expected = if mapped { "65534" } else { "1234" };
        ensure!(said.text().trim() == expected, "{}", said.text());
        bundle.delete()?;
    }
    Ok(())
}

fn umask(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user/umask", json!(0o027));
    let said = bundle.run_script("umask")?;
    ensure!(said.trim_start_matches('0') == "27", "{said}");
    Ok(())
}

fn umask_unset(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("umask")?;
    // runc and crun have always used 0022 instead; engines rely on that.
    ensure!(said.trim_start_matches('0') == "22", "{said}");
    Ok(())
}

fn home(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("echo $HOME")?;
    ensure!(said == "/root", "{said}");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let said = bundle.run_script("echo $HOME")?;
    ensure!(said == "/tmp", "{said}");
    Ok(())
}

fn stdio_owner(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let said = bundle.run_script("echo text > /dev/stdout")?;
    ensure!(said == "text", "{said}");
    Ok(())
}

fn unmapped(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.set("/process/user", json!({"uid": 70000, "gid": 0}));
    bundle.refused().map(drop)
}

fn passwd_fifo(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let path = bundle.rootfs().join("etc/passwd");
    fs::remove_file(&path)?;
    run(Command::new("mkfifo").arg(&path), None)?.ok()?;
    let said = bundle.run_script("echo $HOME")?;
    ensure!(said == "/", "{said}");
    Ok(())
}
