//! config.md `process.apparmorProfile`, where the kernel has AppArmor on.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("profile", "apparmorProfile: the AppArmor profile for the process", profile),
    test("user", "the profile confines a process that is not root, too", user),
    test("user-namespace", "the profile confines a process in a user namespace", user_namespace),
    test(
        "without-securityfs",
        "the profile is applied where /sys/kernel/security is not mounted: Podman detaches it with user namespaces",
        without_securityfs,
    ),
    test("exec", "a further process has the container's profile, as root or not", exec),
    test("exec-other", "exec --apparmor: another profile for a further process", exec_other),
    test("unknown", "a profile that is not loaded is an error", unknown),
];

const CURRENT: &str = "cat /proc/self/attr/current";

/// A profile that is in the kernel until this value goes, and forbids to write `/tmp/forbidden`.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn load(context: &Context) -> Result<Profile> {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !enabled.starts_with('Y') {
            return Err(skip("the kernel has no AppArmor, or it is off"));
        }
        let name = format!("hull-conformance-{}-{}", std::process::id(), context.unique());
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
             file, signal, capability, network, ptrace, mount,\n\
             deny /**/forbidden w,\n\
             }}\n"
        );
        let profile = Profile { name, text };
        match profile.parser("--replace") {
            Ok(()) => Ok(profile),
            Err(reason) => Err(skip(format!("no profile can be loaded: {reason:#}"))),
        }
    }

    fn parser(&self, action: &str) -> Result<()> {
        let mut command = Command::new("apparmor_parser");
        command.args([action, "--skip-cache"]);
        run(&mut command, Some(&self.text))?.ok().map(drop)
    }

    /// What a confined process reads of itself.
    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // What cannot be removed harms nobody: no program has this name.
        let _ = self.parser("--remove");
    }
}

fn profile(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    let mut bundle = context.bundle()?;
    bundle.set("/process/apparmorProfile", json!(profile.name));
    let said = bundle.run_script(&format!("{CURRENT}; echo > /tmp/allowed; echo > /tmp/forbidden; ls /tmp"))?;
    ensure!(said == format!("{}\nallowed", profile.enforced()), "{said}");
    Ok(())
}

fn user(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/apparmorProfile", json!(profile.name));
    let said = bundle.run_script(CURRENT)?;
    ensure!(said == profile.enforced(), "{said}");
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.set("/process/apparmorProfile", json!(profile.name));
    let said = bundle.run_script(CURRENT)?;
    ensure!(said == profile.enforced(), "{said}");
    Ok(())
}

fn without_securityfs(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.set("/process/apparmorProfile", json!(profile.name)).script(CURRENT).save()?;
    let runtime = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount /sys/kernel/security && exec \"$@\"", "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    if let Some(folder) = runtime.get_current_dir() {
        command.current_dir(folder);
    }
    let said = run(&mut command, None)?.ok()?;
    ensure!(said.text() == profile.enforced(), "{}", said.text());
    Ok(())
}

fn exec(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    for uid in [0, 1000] {
        let mut bundle = context.bundle()?;
        bundle.set("/process/user", json!({"uid": uid, "gid": uid}));
        bundle.set("/process/apparmorProfile", json!(profile.name));
        bundle.started()?;
        let said = bundle.exec(&[], CURRENT)?.ok()?;
        ensure!(said.text() == profile.enforced(), "uid {uid}: {}", said.text());
    }
    Ok(())
}

fn exec_other(context: &Context) -> Result<()> {
    let (first, second) = (Profile::load(context)?, Profile::load(context)?);
    let mut bundle = context.bundle()?;
    bundle.set("/process/apparmorProfile", json!(first.name));
    bundle.started()?;
    let said = bundle.exec(&["--apparmor", &second.name], CURRENT)?.ok()?;
    ensure!(said.text() == second.enforced(), "{}", said.text());
    Ok(())
}

fn unknown(context: &Context) -> Result<()> {
    let profile = Profile::load(context)?;
    let mut bundle = context.bundle()?;
    bundle.set("/process/apparmorProfile", json!(format!("{}-not", profile.name)));
    bundle.refused().map(drop)
}
