//! config-linux.md "Namespaces".

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, case, test};

pub(crate) const TESTS: &[Test] = &[
    case(
        "new-pid",
        "pid: processes inside the container will only be able to see other processes inside the same container",
        new,
        "pid pid",
    ),
    case("new-network", "network: the container will have its own network stack", new, "network net"),
    case("new-mount", "mount: the container will have an isolated mount table", new, "mount mnt"),
    case(
        "new-ipc",
        "ipc: processes inside the container will only be able to communicate to other processes inside the same container",
        new,
        "ipc ipc",
    ),
    case("new-uts", "uts: the container will be able to have its own hostname and domain name", new, "uts uts"),
    case("new-user", "user: the container will be able to remap user and group IDs", new, "user user"),
    case(
        "new-cgroup",
        "cgroup: the container will have an isolated view of the cgroup hierarchy",
        new,
        "cgroup cgroup",
    ),
    case(
        "inherited-pid",
        "if a namespace type is not specified, the container MUST inherit the runtime namespace of that type",
        inherited,
        "pid pid",
    ),
    case(
        "inherited-network",
        "if a namespace type is not specified, the container MUST inherit the runtime namespace of that type",
        inherited,
        "network net",
    ),
    case(
        "inherited-ipc",
        "if a namespace type is not specified, the container MUST inherit the runtime namespace of that type",
        inherited,
        "ipc ipc",
    ),
    case(
        "inherited-uts",
        "if a namespace type is not specified, the container MUST inherit the runtime namespace of that type",
        inherited,
        "uts uts",
    ),
    case(
        "inherited-cgroup",
        "if a namespace type is not specified, the container MUST inherit the runtime namespace of that type",
        inherited,
        "cgroup cgroup",
    ),
    case(
        "path-network",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        by_path,
        "network net --net",
    ),
    case(
        "path-ipc",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        by_path,
        "ipc ipc --ipc",
    ),
    case(
        "path-uts",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        by_path,
        "uts uts --uts",
    ),
    case(
        "path-cgroup",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        by_path,
        "cgroup cgroup --cgroup",
    ),
    case(
        "path-pid",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        by_path,
        "pid pid --pid",
    ),
    case(
        "path-mount",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        path_mount,
        "mount",
    ),
    case(
        "path-user",
        "path: the runtime MUST place the container process in the namespace associated with that path",
        path_user,
        "user",
    ),
    test(
        "path-user-without-groups",
        "path: a user namespace that forbids setgroups (user_namespaces(7)) is one to join, too",
        path_user_without_groups,
    ),
    test(
        "path-mount-other-proc",
        "a mount namespace that is joined decides nothing about where the runtime writes kernel parameters",
        path_mount_other_proc,
    ),
    test(
        "path-wrong-type",
        "the runtime MUST generate an error if path is not associated with a namespace of type type",
        wrong_type,
    ),
    test("path-fifo", "a namespace path that is a FIFO is an error, and nothing waits for its writer", path_fifo),
    test("path-missing", "a namespace path that does not exist is an error", path_missing),
    test(
        "duplicate",
        "if a namespaces field contains duplicated namespaces with same type, the runtime MUST generate an error",
        duplicate,
    ),
    test("unknown-type", "a namespace type that does not exist is an error", unknown),
    test("loopback", "the loopback of a new network namespace is up", loopback),
    test("hostname", "hostname: the container's hostname as seen by processes running inside the container", hostname),
    test("domainname", "domainname: the container's domainname", domainname),
    test("hostname-needs-uts", "hostname without a new uts namespace must not change the host's", hostname_needs_uts),
];

fn ours(name: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{name}"))?.to_string_lossy().into_owned())
}

fn new(context: &Context, row: &str) -> Result<()> {
    let (kind, name) = row.split_once(' ').context("row")?;
    let mut bundle = context.bundle()?;
    if kind == "user" {
        bundle.user_namespace()?;
    }
    let said = bundle.run_script(&format!("readlink /proc/self/ns/{name}"))?;
    ensure!(said.starts_with(name) && said != ours(name)?, "{said}");
    Ok(())
}

fn inherited(context: &Context, row: &str) -> Result<()> {
    let (kind, name) = row.split_once(' ').context("row")?;
    let mut bundle = context.bundle()?;
    bundle.without_namespace(kind);
    if kind == "uts" {
        bundle.unset("/hostname");
    }
    if kind == "network" || kind == "ipc" {
        // Their file systems belong to the namespace's owner.
        bundle.without_mount("/dev/mqueue");
    }
    let said = bundle.run_script(&format!("readlink /proc/self/ns/{name}"))?;
    ensure!(said == ours(name)?, "{said} instead of {}", ours(name)?);
    Ok(())
}

/// A process in namespaces of its own; ends when dropped.
pub(super) struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Result<Holder> {
        Holder::begin(Command::new("unshare"), flags)
    }

    /// A user namespace that belongs to another user than root, whose ids it maps.
    pub(super) fn user_namespace_of(user: u32) -> Result<Holder> {
        let mut command = Command::new("unshare");
        command.uid(user).gid(user).current_dir("/");
        let holder = Holder::begin(command, &["--user"])?;
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", holder.0.id()), format!("0 {user} 65536\n"))?;
        }
        Ok(holder)
    }

    fn begin(mut command: Command, flags: &[&str]) -> Result<Holder> {
        command.args(flags).args(["sh", "-c", "echo ready; exec sleep 120"]).stdout(Stdio::piped());
        let mut holder = Holder(command.stdin(Stdio::null()).spawn()?);
        let stdout = holder.0.stdout.take().context("stdout")?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        Ok(holder)
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn by_path(context: &Context, row: &str) -> Result<()> {
    let mut fields = row.split(' ');
    let (kind, name, flag) =
        (fields.next().context("row")?, fields.next().context("row")?, fields.next().context("row")?);
    let flags: &[&str] = if kind == "pid" { &["--pid", "--fork", "--kill-child"] } else { &[flag] };
    let holder = Holder::new(flags)?;
    let path = holder.path(if kind == "pid" { "pid_for_children" } else { name });
    let mut bundle = context.bundle()?;
    bundle.namespace(kind, Some(&path));
    if kind == "uts" {
        bundle.unset("/hostname");
    }
    let said = bundle.run_script(&format!("readlink /proc/self/ns/{name}"))?;
    let want = fs::read_link(&path)?;
    ensure!(said == want.to_string_lossy(), "{said} instead of {}", want.display());
    ensure!(said != ours(name)?, "it is the host's");
    Ok(())
}

fn path_mount(context: &Context, _row: &str) -> Result<()> {
    let holder = Holder::new(&["--mount", "--propagation", "private"])?;
    let mut bundle = context.bundle()?;
    bundle.namespace("mount", Some(&holder.path("mnt")));
    let said = bundle.run_script("readlink /proc/self/ns/mnt")?;
    let want = fs::read_link(holder.path("mnt"))?;
    ensure!(said == want.to_string_lossy(), "{said} instead of {}", want.display());
    Ok(())
}

fn path_mount_other_proc(context: &Context) -> Result<()> {
    // What takes the write is a file of whoever made the namespace.
    let fake = "mount -t tmpfs fake /proc && mkdir -p /proc/sys/net/ipv4 && echo fake >/proc/sys/net/ipv4/ip_forward && exec \"$@\"";
    let holder = Holder::new(&["--mount", "--propagation", "private", "sh", "-c", fake, "sh"])?;
    let mut bundle = context.bundle()?;
    bundle.namespace("mount", Some(&holder.path("mnt"))).set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let said = bundle.run_script("cat /proc/sys/net/ipv4/ip_forward")?;
    ensure!(said == "1", "{said}");
    Ok(())
}

fn path_user(context: &Context, _row: &str) -> Result<()> {
    join_user(context, &Holder::new(&["--user"])?)
}

fn path_user_without_groups(context: &Context) -> Result<()> {
    let holder = Holder::new(&["--user"])?;
    fs::write(format!("/proc/{}/setgroups", holder.0.id()), "deny")?;
    join_user(context, &holder)
}

fn join_user(context: &Context, holder: &Holder) -> Result<()> {
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.0.id()), "0 100000 65536\n")?;
    }
    let mut bundle = context.bundle()?;
    bundle.chown_rootfs(100_000)?;
    bundle.namespace("user", Some(&holder.path("user")));
    let said = bundle.run_script("readlink /proc/self/ns/user; id -u; id -g")?;
    let want = format!("{}\n0\n0", fs::read_link(holder.path("user"))?.display());
    ensure!(said == want, "{said} instead of {want}");
    Ok(())
}

fn wrong_type(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("network", Some("/proc/self/ns/uts"));
    bundle.refused()?;
    bundle.namespace("network", Some("/dev/null"));
    bundle.refused().map(drop)
}

fn path_fifo(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let path = bundle.path.join("fifo");
    run(Command::new("mkfifo").arg(&path), None)?.ok()?;
    bundle.namespace("ipc", Some(&path.to_string_lossy()));
    bundle.refused().map(drop)
}

fn path_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("network", Some("/no/such/namespace"));
    bundle.refused().map(drop)
}

fn duplicate(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/linux/namespaces", json!({"type": "pid"}));
    bundle.refused().map(drop)
}

fn unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/linux/namespaces", json!({"type": "dream"}));
    bundle.refused().map(drop)
}

fn loopback(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("ip addr show lo; ip link | grep -c '^[0-9]*: '")?;
    ensure!(said.contains("127.0.0.1") && said.contains("UP"), "{said}");
    Ok(())
}

fn hostname(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/hostname", json!("some.name"));
    let said = bundle.run_script("hostname")?;
    ensure!(said == "some.name", "{said}");
    Ok(())
}

fn domainname(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/domainname", json!("some.domain"));
    let said = bundle.run_script("cat /proc/sys/kernel/domainname")?;
    ensure!(said == "some.domain", "{said}");
    Ok(())
}

fn hostname_needs_uts(context: &Context) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = context.bundle()?;
    bundle.without_namespace("uts").set("/hostname", json!("changed-by-test"));
    let output = bundle.run()?;
    let after = fs::read_to_string("/proc/sys/kernel/hostname")?;
    if after != before {
        fs::write("/proc/sys/kernel/hostname", &before)?;
    }
    ensure!(after == before, "the host is called {after}");
    ensure!(!output.success(), "run succeeded, the hostname was ignored");
    Ok(())
}
