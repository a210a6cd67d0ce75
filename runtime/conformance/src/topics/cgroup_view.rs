//! What a container without a cgroup namespace sees at `/sys/fs/cgroup`.
//!
//! A namespace that the configuration does not list is the runtime's (config-linux.md, Namespaces), so `/proc/self/cgroup` names
//! the container's group as the host does, and programs look for it below the mount. On version 1, where every runtime shows
//! the container's own folders, they look for no more than those.

use std::fs;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};

use crate::bundle::Bundle;
use crate::command::run;
use crate::context::{Cgroups, Context};
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("path", "the path of /proc/self/cgroup is there, and the container's process is in it", path),
    test("read-only", "a read-only mount of cgroups is so for the host's hierarchy too", read_only),
    test("writable", "a writable mount of cgroups lets root divide the container's own group", writable),
    test(
        "user-namespace",
        "Cgroup ownership: without a cgroup namespace of its own, a user namespace gets no group, writable as it may look",
        user_namespace,
    ),
    test(
        "host-options",
        "runc issue 5258: the options of the host's mount (nsdelegate) stay, which a new mount would take away",
        host_options,
    ),
    test(
        "first-namespace",
        "runc issue 5258: the options stay, too, when the namespace is the host's first one, joined by its path",
        first_namespace,
    ),
    test(
        "first-namespace-from-another",
        "the same for a runtime that is in another cgroup namespace, as in a container",
        first_namespace_from_another,
    ),
];

/// Sets `at` to the container's group as it is seen inside.
const FIND: &str = "at=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
    [ ! -e /sys/fs/cgroup/pids ] || at=/sys/fs/cgroup/pids
    test -d $at || echo $at is not there";

fn bundle<'a>(context: &'a Context, options: &[&str]) -> Result<Bundle<'a>> {
    let mut bundle = context.bundle()?;
    bundle.without_namespace("cgroup").without_mount("/sys/fs/cgroup").script("true");
    let mut all = vec!["nosuid", "noexec", "nodev", "relatime"];
    all.extend(options);
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &all);
    Ok(bundle)
}

fn path(context: &Context) -> Result<()> {
    let said = bundle(context, &["ro"])?.run_script(&format!("{FIND}; cat $at/cgroup.procs"))?;
    ensure!(said.lines().any(|line| line == "1"), "{said:?} lacks process 1");
    Ok(())
}

fn read_only(context: &Context) -> Result<()> {
    let attempts = "for place in /sys/fs/cgroup $at; do
        mkdir $place/made 2>/dev/null && rmdir $place/made && echo made a group in $place
        (echo 1 > $place/cgroup.procs) 2>/dev/null && echo wrote to $place
        done; true";
    let said = bundle(context, &["ro"])?.run_script(&format!("{FIND}; {attempts}"))?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

fn writable(context: &Context) -> Result<()> {
    let said =
        bundle(context, &["rw"])?.run_script(&format!("{FIND}; mkdir $at/made && rmdir $at/made && echo done"))?;
    ensure!(said == "done", "{said}");
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    if context.cgroups == Cgroups::V1 {
        return Err(skip("version 1 has no groups above its own there"));
    }
    let mut bundle = bundle(context, &["rw"])?;
    bundle.user_namespace()?;
    let attempts = "while :; do
            mkdir $at/made 2>/dev/null && rmdir $at/made && echo made a group in $at
            (: >> $at/cgroup.procs) 2>/dev/null && echo can write to $at
            [ $at != /sys/fs/cgroup ] || break
            at=${at%/*}
        done; true";
    let said = bundle.run_script(&format!("{FIND}; {attempts}"))?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// The options of version 2's file system, which all of its mounts have in common.
fn options() -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.contains(" /sys/fs/cgroup ")).context("no mount of cgroups")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
}

fn set_options(options: &str) -> Result<()> {
    let context = fspick(CWD, "/sys/fs/cgroup", FsPickFlags::FSPICK_CLOEXEC)?;
    for option in options.split(',').filter(|option| *option != "rw") {
        fsconfig_set_flag(&context, option).with_context(|| option.to_owned())?;
    }
    Ok(fsconfig_reconfigure(&context)?)
}

/// What the options were; they are so again when it is dropped.
struct Before(String);

impl Drop for Before {
    fn drop(&mut self) {
        let _ = set_options(&self.0);
    }
}

fn host_options(context: &Context) -> Result<()> {
    let bundle = bundle(context, &["ro"])?;
    keeps_options(context, || bundle.output().map(drop))
}

static ALONE: Mutex<()> = Mutex::new(());

/// Runs a container while the hierarchy has `nsdelegate`, which must be left alone.
fn keeps_options(context: &Context, container: impl FnOnce() -> Result<()>) -> Result<()> {
    if context.cgroups == Cgroups::V1 {
        return Err(skip("cgroups of version 1"));
    }
    // They are the whole machine's: one test at a time.
    let _alone = ALONE.lock().map_err(|_| anyhow::anyhow!("another test broke down"))?;
    let kept = Before(options()?);
    set_options(&format!("{},nsdelegate", kept.0))?;
    let before = options()?;
    if !before.contains("nsdelegate") {
        return Err(skip("not the first cgroup namespace: the options cannot be changed from here"));
    }
    container()?;
    let after = options()?;
    ensure!(after == before, "{before} before, {after} after");
    Ok(())
}

/// A container in the suite's cgroup namespace, which has to be the machine's first one, that says whether it sees its own group there.
fn in_first(context: &Context) -> Result<Bundle<'_>> {
    let mut bundle = bundle(context, &["ro"])?;
    bundle.namespace("cgroup", Some(&format!("/proc/{}/ns/cgroup", std::process::id())));
    bundle.script(&format!("{FIND}; readlink /proc/self/ns/cgroup"));
    Ok(bundle)
}

const FIRST: &str = "cgroup:[4026531835]";

fn first_namespace(context: &Context) -> Result<()> {
    let bundle = in_first(context)?;
    keeps_options(context, || {
        let said = bundle.output()?;
        ensure!(said == FIRST, "{said}");
        Ok(())
    })
}

fn first_namespace_from_another(context: &Context) -> Result<()> {
    if !context.systemd() {
        return Err(skip(
            "with nsdelegate, the kernel lets nobody but systemd move a process out of its cgroup namespace",
        ));
    }
    let bundle = in_first(context)?;
    keeps_options(context, || {
        bundle.save()?;
        let inner = bundle.command(&["run", &bundle.id]);
        let mut command = Command::new("unshare");
        command.args(["--cgroup", "--"]).arg(inner.get_program()).args(inner.get_args()).current_dir(&bundle.path);
        let output = run(&mut command, None)?.ok()?;
        ensure!(output.text() == FIRST, "{}", output.text());
        Ok(())
    })
}
