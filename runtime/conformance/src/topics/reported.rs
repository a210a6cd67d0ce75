//! What users of runc, crun and youki reported of late: each test shows one fault that was mended there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command::{Output, patience, run, wait};
use crate::context::{Cgroups, Context};
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "many-mounts",
        "runc#5177: more mounts than the soft limit of open files, which the program keeps",
        many_mounts,
    ),
    test("device-owner", "crun 1.8: fileMode, uid and gid of devices hold in a user namespace too", device_owner),
    test("device-umask", "crun 1.14: the caller's umask takes no bits of fileMode away", device_umask),
    test(
        "path-folder",
        "execvp(3), crun 1.21: a folder or a plain file of the program's name is no end of the search in PATH",
        path_folder,
    ),
    test("path-dot", "crun 1.21: names that begin with a dot are looked up in PATH", path_dot),
    case("no-stdin", "crun 1.21: standard input may be closed", closed_stream, "<&-"),
    case("no-stdout", "crun 1.21: standard output may be closed", closed_stream, ">&-"),
    case("no-streams", "crun 1.21: all standard streams may be closed", closed_stream, "<&- >&- 2>&-"),
    test("home-empty", "runc#4711: an empty HOME is set", home_empty),
    test("home-unknown", "crun 1.21: HOME is / for a user without an entry", home_unknown),
    test("exec-home", "runc#5265: exec --process without env has HOME", exec_home),
    test("exec-scheduling", "runc#4585: exec --process: scheduler and ioPriority", exec_scheduling),
    test("exec-user", "crun 1.16.1: exec has the user and the groups of the container's process", exec_user),
    test("exec-mounts", "youki#3431: exec adds no mounts", exec_mounts),
    test(
        "exec-sub-cgroup-outside",
        "runc#5457: exec --cgroup stays below the container's cgroup",
        exec_sub_cgroup_outside,
    ),
    test(
        "exec-ignore-paused",
        "youki, ignore_paused_test: exec --ignore-paused waits in a paused container, and runs",
        exec_ignore_paused,
    ),
    test(
        "seccomp-without-rights",
        "runc#789: a filter without noNewPrivileges, where the process has no capabilities",
        seccomp_without_rights,
    ),
    test("personality-first", "runc#4900: the personality is set before a filter could forbid it", personality_first),
    test("masked-nodes", "youki, masked_device_nodes: devices and FIFOs can be masked", masked_nodes),
    test(
        "memory-policy-values",
        "youki, memory_policy: mode is REQUIRED; nodes are ids of memory nodes",
        memory_policy_values,
    ),
    test("tmpfs-new", "runc#4971: a tmpfs on a destination that is made has its own mode, 1777", tmpfs_new),
    test(
        "destination-dangling",
        "runc#4985: a destination that is a dangling link is made below the root",
        destination_dangling,
    ),
    test(
        "slave-root",
        "runc#5192: rootfsPropagation rslave: mounts below the root come and go with the host's",
        slave_root,
    ),
    test(
        "foreign-network",
        "runc#4492: a new user namespace beside a network namespace that is the host's",
        foreign_network,
    ),
    test("pids-zero", "runc#4949: pids.limit 0 is a limit", pids_zero),
    test("cpuset-parent", "crun 1.14: the parent's cpuset stays as it is", cpuset_parent),
    test("oom-score-zero", "crun 1.9: oomScoreAdj 0 is set, whatever the caller's is", oom_score_zero),
    test("cwd-made", "crun 1.5: a working directory that is not there is made", cwd_made),
    test("version-anywhere", "crun#1816: --version without environment, for a user without a home", version_anywhere),
];

/// `run` below a shell that does something first, or last with the streams.
fn run_shell(bundle: &Bundle<'_>, first: &str, last: &str) -> Result<Output> {
    bundle.save()?;
    let runtime = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{first} exec \"$0\" \"$@\" {last}")]);
    command.arg(runtime.get_program()).args(runtime.get_args()).current_dir(&bundle.path);
    run(&mut command, None)
}

/// `exec` of a process object.
fn exec_process(bundle: &Bundle<'_>, process: &Value) -> Result<String> {
    fs::write(bundle.path.join("process.json"), process.to_string())?;
    Ok(bundle.runtime(&["exec", "--process", "process.json", &bundle.id])?.ok()?.text().to_owned())
}

fn many_mounts(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = bundle.path.join("source");
    fs::write(&source, "")?;
    for number in 0..300 {
        bundle.mount("bind", &source.to_string_lossy(), &format!("/mnt/{number}"), &["bind", "ro"]);
    }
    bundle.unset("/process/rlimits").script("grep -c ' /mnt/' /proc/self/mountinfo; ulimit -Sn");
    let output = run_shell(&bundle, "ulimit -Sn 256;", "")?.ok()?;
    ensure!(output.text() == "300\n256", "{}", output.text());
    Ok(())
}

fn device_owner(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 4},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        ]),
    );
    let said = bundle.run_script(
        "stat -c '%F %t:%T %a %u:%g' /dev/mine /dev/pipe; head -c 2 /dev/mine | od -An -t x1 | tr -d ' '",
    )?;
    ensure!(said == "character special file 1:5 640 0:4\nfifo 0:0 600 0:0\n0000", "{said}");
    Ok(())
}

fn device_umask(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle
        .set("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]));
    bundle.script("stat -c %a /dev/mine /dev/null");
    let output = run_shell(&bundle, "umask 077;", "")?.ok()?;
    ensure!(output.text() == "666\n666", "{}", output.text());
    Ok(())
}

fn path_folder(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir_all(bundle.rootfs().join("a/echo"))?;
    fs::create_dir(bundle.rootfs().join("b"))?;
    fs::write(bundle.rootfs().join("b/echo"), "")?;
    bundle.set("/process/env", json!(["PATH=/a:/b:/bin"])).set("/process/args", json!(["echo", "found"]));
    let said = bundle.output()?;
    ensure!(said == "found", "{said}");
    bundle.started()?;
    let said = bundle.runtime(&["exec", &bundle.id, "echo", "again"])?.ok()?;
    ensure!(said.text() == "again", "{}", said.text());
    Ok(())
}

fn path_dot(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.program("bin/.hidden", b"#!/bin/sh\necho found\n")?;
    bundle.set("/process/args", json!([".hidden"]));
    let said = bundle.output()?;
    ensure!(said == "found", "{said}");
    Ok(())
}

fn closed_stream(context: &Context, closed: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("echo written > /tmp/file");
    run_shell(&bundle, "", closed)?.ok()?;
    let written = fs::read_to_string(bundle.rootfs().join("tmp/file")).context("it did not run")?;
    ensure!(written == "written\n", "{written}");
    Ok(())
}

fn home_empty(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/process/env", json!("HOME="));
    let said = bundle.run_script("echo $HOME")?;
    ensure!(said == "/root", "{said}");
    Ok(())
}

fn home_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 4242, "gid": 4242}));
    let said = bundle.run_script("echo $HOME")?;
    ensure!(said == "/", "{said}");
    Ok(())
}

fn exec_home(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said = exec_process(
        &bundle,
        &json!({"user": {"uid": 1000, "gid": 1000}, "cwd": "/", "args": ["/bin/sh", "-c", "echo $HOME"]}),
    )?;
    ensure!(said == "/tmp", "{said}");
    Ok(())
}

fn exec_scheduling(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", "awk '{print $41}' /proc/self/stat; ionice -p $$"],
        "scheduler": {"policy": "SCHED_BATCH"}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
    });
    let said = exec_process(&bundle, &process)?;
    ensure!(said == "3\nidle", "{said}");
    Ok(())
}

fn exec_user(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [7]}));
    bundle.started()?;
    let said = bundle.exec(&[], "id -u; id -g; id -G")?.ok()?;
    ensure!(said.text() == "1000\n1001\n1001 7", "{}", said.text());
    Ok(())
}

fn exec_mounts(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/maskedPaths", json!(["/proc/acpi"])).set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.started()?;
    let said = bundle
        .exec(&[], "cat /proc/1/mountinfo > /tmp/first; cat /proc/self/mountinfo > /tmp/own; wc -l < /tmp/own")?
        .ok()?;
    ensure!(said.text() != "0", "no mounts");
    let read = |name: &str| fs::read_to_string(bundle.rootfs().join("tmp").join(name));
    ensure!(read("first")? == read("own")?, "the mounts differ");
    Ok(())
}

fn exec_sub_cgroup_outside(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    let name = folder.file_name().context("cgroup")?.to_string_lossy().into_owned();
    let sibling = Group::new(folder.with_file_name(format!("{name}-beside")))?;
    let path = format!("../{name}-beside");
    let option = if context.cgroups == Cgroups::V1 { format!("pids:{path}") } else { path };
    let output = bundle.exec(&["--cgroup", &option], "cat /proc/self/cgroup")?;
    ensure!(!output.success(), "it ran in {}: {}", sibling.0.display(), output.stdout);
    Ok(())
}

fn exec_ignore_paused(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let procs = bundle.cgroup("pids", bundle.pid()?)?.join("cgroup.procs");
    let count = || Ok::<_, anyhow::Error>(fs::read_to_string(&procs)?.lines().count());
    let before = count()?;
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    let mut command = bundle.command(&["exec", "--ignore-paused", &bundle.id, "touch", "/tmp/ran"]);
    let mut exec = command.stdin(Stdio::null()).spawn()?;
    let deadline = Instant::now() + patience();
    // Once its process is in the group, nothing but resume lets it go on.
    while count()? <= before && exec.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let waits = exec.try_wait()?.is_none() && !bundle.rootfs().join("tmp/ran").exists();
    bundle.runtime(&["resume", &bundle.id])?.ok()?;
    let status = wait(&mut exec, patience())?;
    ensure!(waits && status.success() && bundle.rootfs().join("tmp/ran").exists(), "{status}, and waited: {waits}");
    Ok(())
}

fn masked_nodes(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let nodes = [("character", "c", "1", "5"), ("block", "b", "7", "200"), ("fifo", "p", "", "")];
    for (name, kind, major, minor) in nodes {
        let mut command = Command::new("mknod");
        command
            .arg(bundle.rootfs().join(name))
            .arg(kind)
            .args([major, minor].iter().filter(|number| !number.is_empty()));
        run(&mut command, None)?.ok()?;
    }
    bundle.set("/linux/maskedPaths", json!(["/character", "/block", "/fifo"]));
    let said = bundle
        .run_script("stat -c '%F %t:%T' /character /block /fifo | sort -u; cat /character /block /fifo | wc -c")?;
    ensure!(said == "character special file 1:3\n0", "{said}");
    Ok(())
}

fn memory_policy_values(context: &Context) -> Result<()> {
    let wrong = [
        json!({"nodes": "0"}),
        json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
        json!({"mode": "MPOL_BIND", "nodes": ""}),
        json!({"mode": "MPOL_DEFAULT", "nodes": "0"}),
    ];
    for policy in wrong {
        let mut bundle = context.bundle()?;
        bundle.set("/ociVersion", json!("1.3.0")).set("/linux/memoryPolicy", policy.clone());
        bundle.refused().with_context(|| policy.to_string())?;
    }
    Ok(())
}

/// A cgroup of the test's own.
struct Group(PathBuf);

impl Group {
    fn new(path: PathBuf) -> Result<Group> {
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn seccomp_without_rights(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set(
        "/process/capabilities",
        json!({"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []}),
    );
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["syslog"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    bundle.started()?;
    let said = bundle
        .exec(&[], "cat /proc/1/status /proc/self/status | awk '/^(NoNewPrivs|Seccomp|CapEff):/ {print $2}'")?
        .ok()?;
    ensure!(said.text() == "0000000000000000\n0\n2\n0000000000000000\n0\n2", "{}", said.text());
    Ok(())
}

fn personality_first(context: &Context) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(skip("a machine without another name"));
    }
    let mut bundle = context.bundle()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    let said = bundle.run_script("uname -m")?;
    ensure!(said == "i686", "{said}");
    Ok(())
}

fn tmpfs_new(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/not/there", &[]);
    let said = bundle.run_script("stat -c %a /not/there")?;
    ensure!(said == "1777", "{said}");
    Ok(())
}

fn destination_dangling(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = bundle.path.join("source");
    fs::write(&source, "content")?;
    symlink("../not/there", bundle.rootfs().join("etc/link"))?;
    bundle.mount("bind", &source.to_string_lossy(), "/etc/link", &["bind", "ro"]);
    let said = bundle.run_script("cat /etc/link; readlink /etc/link; test -f /not/there && echo made")?;
    ensure!(said == "content../not/there\nmade", "{said}");
    Ok(())
}

/// A mount of the test's own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], path: &Path) -> Result<Mounted> {
        run(Command::new("mount").args(options).arg(path), None)?.ok()?;
        Ok(Mounted(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.0), None);
    }
}

fn slave_root(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let root = bundle.rootfs();
    fs::create_dir(root.join("late"))?;
    let path = root.to_string_lossy().into_owned();
    let _bound = Mounted::new(&["--bind", &path], &root)?;
    run(Command::new("mount").arg("--make-shared").arg(&root), None)?.ok()?;
    bundle.set("/linux/rootfsPropagation", json!("rslave"));
    bundle.started()?;
    let seen = |bundle: &Bundle<'_>| bundle.exec(&[], "grep -c ' /late ' /proc/self/mountinfo || true");
    let late = Mounted::new(&["-t", "tmpfs", "late"], &root.join("late"))?;
    let (with, without) = {
        let with = seen(&bundle)?.ok()?;
        run(Command::new("umount").arg(&late.0), None)?.ok()?;
        (with, seen(&bundle)?.ok()?)
    };
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!((with.text(), without.text()) == ("1", "0"), "{} and then {}", with.text(), without.text());
    Ok(())
}

fn foreign_network(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.namespace("network", Some("/proc/self/ns/net"));
    let own = fs::read_link("/proc/self/ns/net")?;
    let said = bundle.run_script("readlink /proc/self/ns/net; id -u")?;
    ensure!(said == format!("{}\n0", own.display()), "{said}");
    Ok(())
}

fn pids_zero(context: &Context) -> Result<()> {
    context.needs("pids")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/pids", json!({"limit": 0}));
    bundle.script("echo started; true | true; echo forked");
    let output = bundle.run()?;
    ensure!(output.stdout.contains("started") && !output.stdout.contains("forked"), "{}", output.stdout);
    Ok(())
}

fn cpuset_parent(context: &Context) -> Result<()> {
    let hierarchy = Path::new("/sys/fs/cgroup/cpuset");
    if context.cgroups == Cgroups::V2 || context.systemd() || !hierarchy.exists() {
        return Err(skip("a matter of version 1"));
    }
    let mut bundle = context.bundle()?;
    let parent = hierarchy.join("berth-test").join(&bundle.id);
    fs::create_dir_all(&parent)?;
    for folder in [hierarchy.join("berth-test"), parent.clone()] {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(folder.join(file), fs::read(hierarchy.join(file))?)?;
        }
    }
    let before = fs::read_to_string(parent.join("cpuset.cpus"))?;
    if before.trim() == "0" {
        return Err(skip("a machine with one CPU"));
    }
    bundle.set("/linux/cgroupsPath", json!(format!("/berth-test/{}/child", bundle.id)));
    bundle.set("/linux/resources/cpu", json!({"cpus": "0"}));
    let said = bundle.run_script("awk '/^Cpus_allowed_list/ {print $2}' /proc/self/status")?;
    let after = fs::read_to_string(parent.join("cpuset.cpus"))?;
    ensure!(said == "0" && before == after, "{said}, and the parent has {after} instead of {before}");
    Ok(())
}

fn oom_score_zero(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/oomScoreAdj", json!(0));
    bundle.script("cat /proc/self/oom_score_adj");
    let output = run_shell(&bundle, "echo 200 > /proc/self/oom_score_adj;", "")?;
    if output.stderr.to_lowercase().contains("permission denied") {
        return Err(skip("lowering the score needs CAP_SYS_RESOURCE"));
    }
    ensure!(output.ok()?.text() == "0", "the caller's score stayed");
    Ok(())
}

fn cwd_made(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/cwd", json!("/not/there"));
    let said = bundle.run_script("pwd; stat -c %u:%a .")?;
    ensure!(said == "/not/there\n0:755", "{said}");
    Ok(())
}

fn version_anywhere(context: &Context) -> Result<()> {
    // A place that another user may read.
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
    let runtime = folder.path().join("runtime");
    run(Command::new("cp").arg(&context.runtime).arg(&runtime), None)?.ok()?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "-i"])
        .arg(&runtime)
        .arg("--version");
    let output = run(&mut command, None)?.ok()?;
    ensure!(output.stdout.contains("version"), "{}", output.stdout);
    Ok(())
}
