//! Flags that no engine's test goes through, and what the machine's cgroups have to show of them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::bundle::{Bundle, bundle, text};
use crate::program::{status, until};

/// A hierarchy of version 1, where there is one.
fn hierarchy(controller: &str) -> Option<PathBuf> {
    let path = Path::new("/sys/fs/cgroup").join(controller);
    path.join("cgroup.procs").exists().then_some(path)
}

fn running(name: &str) -> Option<Bundle> {
    let b = bundle(name, "exec sleep 1000")?;
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    Some(b)
}

fn first_process(b: &Bundle) -> i64 {
    let state: serde_json::Value = serde_json::from_slice(&b.hull(&["state", &b.id]).stdout).unwrap();
    state["pid"].as_i64().unwrap()
}

#[test]
fn each_flag_of_update_changes_its_limit() {
    let Some(b) = running("update-flags") else { return };
    let Some(cpu) = hierarchy("cpu") else {
        println!("skipped: no cgroups of version 1");
        return;
    };
    let folder = |controller: &str| cpu.with_file_name(controller).join("berth-test").join(&b.id);
    let cpus = std::fs::read_to_string(folder("cpuset").join("cpuset.cpus")).unwrap();
    let first = cpus.split([',', '-', '\n']).next().unwrap().to_owned();
    for (flag, value, controller, file, written) in [
        ("--cpu-period", "50000", "cpu", "cpu.cfs_period_us", "50000"),
        ("--cpu-quota", "20000", "cpu", "cpu.cfs_quota_us", "20000"),
        ("--cpu-burst", "1000", "cpu", "cpu.cfs_burst_us", "1000"),
        ("--cpu-share", "512", "cpu", "cpu.shares", "512"),
        ("--cpuset-cpus", first.as_str(), "cpuset", "cpuset.cpus", first.as_str()),
        ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "0"),
        ("--memory", "64M", "memory", "memory.limit_in_bytes", "67108864"),
        ("--memory-reservation", "32M", "memory", "memory.soft_limit_in_bytes", "33554432"),
        ("--memory-swap", "128M", "memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("--kernel-memory-tcp", "16M", "memory", "memory.kmem.tcp.limit_in_bytes", "16777216"),
        ("--pids-limit", "77", "pids", "pids.max", "77"),
        ("--blkio-weight", "300", "blkio", "blkio.bfq.weight", "300"),
    ] {
        let path = folder(controller).join(file);
        if !path.exists() {
            println!("skipped: {flag}: this kernel has no {file}");
            continue;
        }
        let output = b.hull(&["update", flag, value, &b.id]);
        assert!(output.status.success(), "{flag}: {}", text(&output.stderr));
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), written, "{flag}");
    }
}

/// Beside the limits of version 1: the process begins in it, it freezes, it kills, it tells the pressure.
#[test]
fn a_group_of_version_2_serves_beside_version_1() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.procs").exists() || hierarchy("pids").is_none() {
        println!("skipped: the hierarchies are not mixed");
        return;
    }
    let Some(b) = running("hybrid") else { return };
    let group = unified.join("berth-test").join(&b.id);
    let pid = first_process(&b);
    let of_process = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(of_process.lines().any(|line| line == format!("0::/berth-test/{}", b.id)), "{of_process}");
    let frozen = || std::fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1");
    assert!(b.hull_detached(&["pause", &b.id]));
    assert!(frozen());
    assert!(b.hull_detached(&["resume", &b.id]));
    assert!(!frozen());
    let stats: serde_json::Value = serde_json::from_slice(&b.hull(&["events", "--stats", &b.id]).stdout).unwrap();
    if group.join("cpu.pressure").exists() {
        assert!(stats["data"]["cpu"]["psi"]["some"]["total"].is_u64(), "{stats}");
    }
    assert_eq!(stats["data"]["pids"]["current"], 1, "{stats}");
    // A group below, with a process that the container does not know of.
    let inner = group.join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(inner.join("cgroup.procs"), other.id().to_string()).unwrap();
    assert!(b.hull_detached(&["kill", "--all", &b.id, "KILL"]));
    assert!(!other.wait().unwrap().success());
    assert!(b.hull_detached(&["delete", "--force", &b.id]));
    assert!(!group.exists());
}

#[test]
fn running_out_of_memory_is_an_event() {
    let Some(mut b) = bundle("oom", "read go < /go; x=x; while :; do x=$x$x; done") else { return };
    let Some(memory) = hierarchy("memory") else {
        println!("skipped: no cgroups of version 1");
        return;
    };
    let limit = serde_json::json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    b.spec.linux.as_mut().unwrap().resources = serde_json::from_value(limit).unwrap();
    let gate = b.path().join("rootfs/go");
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let mut events = Command::new(env!("CARGO_BIN_EXE_hull"))
        .arg("--root")
        .arg(b.records())
        .args(["events", "--interval", "100ms", &b.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The first statistics come when the events are listened to.
    assert!(lines.next().unwrap().contains(r#""type":"stats""#));
    std::fs::write(gate, "go\n").unwrap();
    let told = lines.find(|line| line.contains(r#""type":"oom""#));
    // Ends with the container.
    let _ = lines.count();
    events.wait().unwrap();
    assert!(told.is_some_and(|line| line.contains(&b.id)), "{}", memory.display());
}

#[test]
fn a_container_has_a_session_keyring_of_its_own_unless_told_otherwise() {
    let Some(mut b) = bundle("keyring", "cat /proc/keys") else { return };
    b.spec.linux.as_mut().unwrap().masked_paths.clear();
    b.write();
    let with = text(&b.hull(&["run", &b.id]).stdout);
    if !with.contains("keyring") {
        println!("skipped: keys are not shown here");
        return;
    }
    assert!(with.contains(&format!("_ses.{}", b.id)), "{with}");
    // Another name: the kernel takes its time to forget the first.
    let other = format!("{}-none", b.id);
    let without = b.hull(&["run", "--no-new-keyring", &other]);
    assert!(without.status.success() && !text(&without.stdout).contains(&format!("_ses.{other}")));
}

#[test]
fn a_paused_container_takes_a_process_when_told_to_ignore_that() {
    let Some(b) = running("ignore-paused") else { return };
    assert!(b.hull_detached(&["pause", &b.id]));
    let mut exec = Command::new(env!("CARGO_BIN_EXE_hull"))
        .arg("--root")
        .arg(b.records())
        .args(["exec", "--ignore-paused", &b.id, "echo", "thawed"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the second process", || text(&b.hull(&["ps", "--format", "json", &b.id]).stdout).contains(','));
    assert!(exec.try_wait().unwrap().is_none(), "it ran while the container was frozen");
    assert!(b.hull_detached(&["resume", &b.id]));
    let mut said = String::new();
    exec.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(exec.wait().unwrap().success() && said == "thawed\n", "{said}");
}

#[test]
fn who_asks_by_a_socket_gets_a_handle_of_the_process() {
    let Some(b) = bundle("pidfd", "exec sleep 1000") else { return };
    b.write();
    let socket = b.path().join("pidfd");
    let listener = UnixListener::bind(&socket).unwrap();
    let path = socket.display().to_string();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = || {
        let (connection, _) = listener.accept().unwrap();
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 64];
        let parts = &mut [std::io::IoSliceMut::new(&mut buffer)];
        recvmsg(&connection, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else { panic!("no descriptor") };
        let fd = fds.next().unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
        info.unwrap().lines().find_map(|l| l.strip_prefix("Pid:").map(|p| p.trim().to_owned())).unwrap()
    };
    assert!(b.hull_detached(&["run", "--detach", "--pidfd-socket", &path, &b.id]));
    assert_eq!(received(), first_process(&b).to_string());
    let file = b.path().join("pid");
    let exec = ["exec", "--detach", "--pidfd-socket", &path, "--pid-file", "pid", &b.id, "sleep", "1000"];
    assert!(b.hull_detached(&exec));
    assert_eq!(received(), std::fs::read_to_string(file).unwrap());
}

/// features.md: "irrelevant to the actual availability of the features in the host operating system".
#[test]
fn features_are_the_programs_and_not_the_machines() {
    let Some(b) = bundle("features", "true") else { return };
    let features: serde_json::Value = serde_json::from_slice(&b.hull(&["features"]).stdout).unwrap();
    let linux = &features["linux"];
    for (part, keys) in [
        ("cgroup", &["v1", "v2", "systemd", "systemdUser", "rdma"][..]),
        ("seccomp", &["enabled"]),
        ("apparmor", &["enabled"]),
        ("selinux", &["enabled"]),
        ("intelRdt", &["enabled", "schemata", "monitoring"]),
        ("netDevices", &["enabled"]),
    ] {
        assert!(keys.iter().all(|key| linux[part][key] == true), "{part}: {}", linux[part]);
    }
    assert_eq!(linux["namespaces"].as_array().unwrap().len(), 8);
    assert_eq!(linux["capabilities"].as_array().unwrap().len(), 41);
    let lines = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    assert!(lines.contains(&"org.systemd.property.".into()) && lines.contains(&"run.oci.handler".into()));
}

/// What an interrupted creation leaves is no container, and neither is what somebody else put there.
#[test]
fn what_is_no_container_is_neither_listed_nor_found() {
    let Some(b) = running("listed") else { return };
    std::fs::create_dir(b.records().join("interrupted")).unwrap();
    std::fs::write(b.records().join("a-file"), "").unwrap();
    assert_eq!(text(&b.hull(&["list", "--quiet"]).stdout), b.id);
    let output = b.hull(&["state", "interrupted"]);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("container does not exist") && said.contains("--force"),
        "{said}"
    );
    assert!(b.hull(&["delete", "--force", "interrupted"]).status.success());
    assert!(!b.records().join("interrupted").exists());
}

#[test]
fn a_bundle_is_named_by_its_absolute_path() {
    let Some(b) = bundle("named", "true") else { return };
    b.write();
    let real = b.path().canonicalize().unwrap();
    let name = real.file_name().unwrap().to_str().unwrap();
    for given in [".", "./", &format!("../{name}"), &format!("{}//", real.display())] {
        assert!(b.hull_detached(&["create", "--bundle", given, &b.id]));
        let state: serde_json::Value = serde_json::from_slice(&b.hull(&["state", &b.id]).stdout).unwrap();
        assert_eq!(state["bundle"], real.display().to_string(), "{given}");
        assert!(b.hull_detached(&["delete", "--force", &b.id]));
    }
}

#[test]
fn words_that_flags_do_not_take_are_refused_by_name() {
    let Some(b) = running("words") else { return };
    for (args, word) in [
        (&["--log-level", "loud", "list"][..], "loud"),
        (&["--cgroup-manager", "mine", "list"], "mine"),
        (&["--rootless", "perhaps", "list"], "perhaps"),
        (&["exec", "--process-label", "system_u:x", &b.id, "true"], "SELinux"),
        (&["create", "--pid-file", "x", "one", "two"], "--pid-file"),
        (&["explain", "--path", "/proc/kcore", "no-such"], "no-such"),
        (&["checkpoint", "no-such"], "no-such"),
    ] {
        if word == "SELinux" && Path::new("/sys/fs/selinux/enforce").exists() {
            continue;
        }
        let output = b.hull(args);
        assert!(!output.status.success() && text(&output.stderr).contains(word), "{args:?} {}", text(&output.stderr));
    }
    for level in ["error", "warn", "warning", "info", "debug"] {
        assert!(b.hull(&["--log-level", level, "list"]).status.success(), "{level}");
    }
    for (args, word) in [
        (&["version"][..], "spec: 1.3.0"),
        (&["info"], "cgroups"),
        (&["explain", "--path", "/proc/kcore", &b.id], "linux.maskedPaths"),
    ] {
        assert!(text(&b.hull(args).stdout).contains(word), "{args:?}");
    }
    assert_eq!(status(&b), "running");
}
