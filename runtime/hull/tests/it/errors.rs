//! Every error that can be provoked, as the program logs it: code, phase, object, error number and hint are what callers
//! build on. The object names a thing; sentences belong to the message.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use hull::spec::seccomp::{Action, Rule, Seccomp};
use hull::spec::{
    Device, Hook, Hooks, IdMapping, Linux, Mount, Namespace, NamespaceType, NetDevice, Resources, Rlimit, Scheduler,
    TimeOffset, resources,
};
use rustix::io::Errno;
use serde_json::Value;

use crate::bundle::{Bundle, bundle};
use crate::program::{status, until};

/// Code, phase, object, errno, beginning of the hint, and how it is provoked. `BUNDLE`, `ID` and `CGROUP` stand for what differs.
type Row = (&'static str, &'static str, &'static str, Option<Errno>, &'static str, fn(&mut Bundle) -> Option<Value>);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("usage", "usage", "--nope", None, "", |b| log(b, &["create", "--nope", "x"])),
    ("input-file", "usage", "/no/such", Some(Errno::NOENT), "", |b| running(b, &["update", "--resources", "/no/such", "ID"])),
    ("config-read", "config", "/no/such/config.json", Some(Errno::NOENT), "", |b| log(b, &["run", "--bundle", "/no/such", "ID"])),
    ("config-invalid", "config", "linux.seccomp.syscalls[0].names", None, "", |b| { linux(b).seccomp = Some(profile(Rule::default())); run(b) }),
    ("unsupported", "config", "windows", None, "", |b| { b.spec.windows = Some(Value::Object(serde_json::Map::default())); run(b) }),
    ("invalid-id", "state", "a/b", None, "letters, digits", |b| log(b, &["state", "a/b"])),
    ("container-exists", "state", "ID", None, "delete it first", |b| running(b, &["create", "ID"])),
    ("container-not-found", "state", "nobody", None, "", |b| log(b, &["state", "nobody"])),
    ("wrong-state", "state", "ID", None, "", |b| running(b, &["resume", "ID"])),
    ("state-file", "state", "BUNDLE/records/ID/state.json", None, "delete --force removes", damaged_record),
    ("signal", "state", "ID", Some(Errno::PERM), "", |b| { b.spec.process.as_mut().unwrap().user.uid = 1000; start(b); without_capability(b, "kill", &["kill", "ID", "TERM"]) }),
    ("cgroup-create", "cgroup", "CGROUP", None, "processes are inside", occupied_cgroup),
    ("cgroup-write", "cgroup", "CGROUP/pids.max", Some(Errno::INVAL), "", |b| { linux(b).resources = Some(pids(i64::MAX)); run(b) }),
    ("cgroup-read", "cgroup", "CGROUP", Some(Errno::NXIO), "", unreadable_cgroup),
    ("cgroup-join", "cgroup", "CGROUP/none", Some(Errno::NOENT), "", |b| running(b, &["exec", "--cgroup", "none", "ID", "true"])),
    ("cgroup-remove", "cgroup", "CGROUP", Some(Errno::ROFS), "", |b| with_cgroups_read_only(b, &["delete", "ID"], true)),
    ("freeze", "cgroup", "CGROUP", Some(Errno::ROFS), "", |b| with_cgroups_read_only(b, &["pause", "ID"], false)),
    ("systemd", "cgroup", "/run/dbus/system_bus_socket", Some(Errno::NOENT), "is systemd with dbus running", without_bus),
    ("clone", "namespace", "clone3", Some(Errno::NOSPC), "the limit of namespaces", |b| without_namespaces(b, "pid")),
    ("namespace-join", "namespace", "/no/such", Some(Errno::NOENT), "", |b| { namespaces(b)[1].path = Some("/no/such".into()); run(b) }),
    ("namespace-create", "namespace", "cgroup", Some(Errno::NOSPC), "", |b| { namespace(b, NamespaceType::Cgroup); without_namespaces(b, "cgroup") }),
    ("id-map", "namespace", "/proc/PID/uid_map", Some(Errno::INVAL), "ranges may not overlap", |b| { map(b, 1); let twice = linux(b).uid_mappings[0].clone(); linux(b).uid_mappings.push(twice); run(b) }),
    ("host-name", "namespace", "hostname", Some(Errno::INVAL), "", |b| { b.spec.hostname = Some("x".repeat(65)); run(b) }),
    ("network", "namespace", "nosuchdev", Some(Errno::NODEV), "", |b| { linux(b).net_devices = [("nosuchdev".to_owned(), NetDevice::default())].into(); run(b) }),
    ("root-open", "rootfs", "BUNDLE/none", Some(Errno::NOENT), "", |b| { b.spec.root.as_mut().unwrap().path = "none".into(); run(b) }),
    ("mount-source", "rootfs", "/no/such/source", Some(Errno::NOENT), "/no: no such file", |b| { mount(b, "/x", "bind", Some("/no/such/source"), &[]); run(b) }),
    ("mount-target", "rootfs", "/proc", Some(Errno::LOOP), "it must be a directory", |b| { std::fs::remove_dir(b.path().join("rootfs/proc")).unwrap(); symlink("tmp", b.path().join("rootfs/proc")).unwrap(); run(b) }),
    ("mount", "rootfs", "/x", Some(Errno::NODEV), "", |b| { mount(b, "/x", "nosuchfs", None, &[]); run(b) }),
    ("mount-attr", "rootfs", "/x", Some(Errno::INVAL), "the file system must support id-mapped", mapped_proc),
    ("mount-option", "rootfs", "nosuch", None, "", |b| { mount(b, "/x", "bind", Some("/tmp"), &["nosuch"]); run(b) }),
    ("device", "rootfs", "/bin/busybox/x", Some(Errno::NOTDIR), "", |b| { linux(b).devices.push(Device { path: "/bin/busybox/x".into(), r#type: "c".into(), major: 1, minor: 3, ..Device::default() }); run(b) }),
    ("mask", "rootfs", "/loop", Some(Errno::LOOP), "", |b| { symlink("loop", b.path().join("rootfs/loop")).unwrap(); linux(b).masked_paths.push("/loop".into()); run(b) }),
    ("pivot", "rootfs", "/", Some(Errno::INVAL), "", in_plain_root),
    ("sysctl", "rootfs", "linux.sysctl[net.ipv4.ip_unprivileged_port_start]", Some(Errno::INVAL), "", |b| { linux(b).sysctl = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "x".to_owned())].into(); run(b) }),
    ("hook", "hook", "/bin/false", None, "", |b| { b.spec.hooks = Some(Hooks { create_runtime: vec![Hook { path: "/bin/false".into(), ..Hook::default() }], ..Hooks::default() }); run(b) }),
    ("cwd", "process", "/bin/busybox", Some(Errno::NOTDIR), "", |b| { b.spec.process.as_mut().unwrap().cwd = "/bin/busybox".into(); run(b) }),
    ("identity", "process", "process.user.uid", Some(Errno::INVAL), "the id has no mapping", |b| { map(b, 1); b.spec.process.as_mut().unwrap().user.uid = 5000; run(b) }),
    ("capabilities", "process", "process.capabilities.bounding", Some(Errno::PERM), "", |b| { b.write(); without_capability(b, "setpcap", &["run", "ID"]) }),
    ("rlimit", "process", "RLIMIT_NOFILE", Some(Errno::PERM), "raising a hard limit", |b| { b.spec.process.as_mut().unwrap().rlimits.push(Rlimit { r#type: "RLIMIT_NOFILE".into(), soft: 1024, hard: u64::MAX }); run(b) }),
    ("scheduling", "process", "process.scheduler", Some(Errno::INVAL), "", |b| { b.spec.process.as_mut().unwrap().scheduler = Some(Scheduler { policy: "SCHED_DEADLINE".into(), runtime: Some(10_000), deadline: Some(5_000), period: Some(20_000), ..Scheduler::default() }); run(b) }),
    ("label", "process", "process.selinuxLabel", None, "SELinux is not enabled", |b| { if Path::new("/sys/fs/selinux/enforce").exists() { return None; } b.spec.process.as_mut().unwrap().selinux_label = Some("a:b:c".into()); run(b) }),
    ("seccomp", "process", "linux.seccomp.syscalls[0].errnoRet", None, "", |b| { linux(b).seccomp = Some(profile(Rule { names: vec!["reboot".into()], action: Action::Errno, errno_ret: Some(5000), ..Rule::default() })); run(b) }),
    ("exec", "process", "no-such-program", None, "", |b| { b.spec.process.as_mut().unwrap().args = vec!["no-such-program".into()]; run(b) }),
    ("init-died", "process", "ID", None, "it ran out of memory", |b| { linux(b).resources = Some(Resources { memory: Some(resources::Memory { limit: Some(16 << 10), ..resources::Memory::default() }), ..Resources::default() }); run(b) }),
    ("console", "console", "/dev/console", None, "", linked_console),
    ("checkpoint", "checkpoint", "/no/such", Some(Errno::NOENT), "", |b| { b.write(); log(b, &["restore", "--image-path", "/no/such", "ID"]) }),
    ("landlock", "process", "/no/such", Some(Errno::NOENT), "", |b| { b.spec.annotations.insert("dev.hull.landlock".into(), r#"{"readOnly": ["/no/such"]}"#.into()); run(b) }),
    ("time-offsets", "namespace", "linux.timeOffsets", Some(Errno::RANGE), "", |b| { namespace(b, NamespaceType::Time); linux(b).time_offsets = [("boottime".to_owned(), TimeOffset { secs: i64::MIN / 2, nanosecs: 0 })].into(); run(b) }),
    ("socket", "process", "/no/such", Some(Errno::NOENT), "", |b| { b.spec.process.as_mut().unwrap().terminal = true; b.write(); log(b, &["create", "--console-socket", "/no/such", "ID"]) }),
    ("output", "usage", "/no/such/pid", Some(Errno::NOENT), "", |b| { b.write(); log(b, &["create", "--pid-file", "/no/such/pid", "ID"]) }),
    ("wasm", "process", "/no/such", None, "it is the program of", without_wasm),
];

/// Codes that no test provokes, and why.
const NOT_PROVOKED: &[(&str, &str)] = &[
    ("internal", "should not happen"),
    ("device-filter", "needs cgroups of version 2 and a caller without CAP_BPF that may make them"),
    ("descriptors", "needs a caller that closes a descriptor in the middle of a start"),
    ("intel-rdt", "needs processors with resctrl; without, linux.intelRdt is unsupported"),
    ("timeout", "needs a process that does not end when it is killed"),
];

#[test]
fn each_error_has_its_code_phase_object_errno_and_hint() {
    let mut wrong = Vec::new();
    for (code, phase, object, errno, hint, provoke) in TABLE {
        let Some(mut b) = bundle(&format!("error-{code}"), "sleep 1000") else { return };
        let Some(line) = provoke(&mut b) else {
            println!("skipped: {code}");
            continue;
        };
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let found = [text("code"), text("phase"), plain(&b, &text("object"))];
        let hint_fits = if hint.is_empty() { text("hint").is_empty() } else { text("hint").starts_with(hint) };
        let number = errno.map_or(Value::Null, |errno| errno.raw_os_error().into());
        if found != [*code, *phase, *object] || line["errno"] != number || !hint_fits {
            wrong.push(format!("{code}: expected {object}, {errno:?}, {hint:?}; got {line}"));
        }
        println!("{code}: {}", text("msg"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A new code gets a row, or a reason why it has none.
#[test]
fn the_table_knows_every_code() {
    let source = include_str!("../../src/error.rs");
    let listed: BTreeSet<&str> =
        TABLE.iter().map(|row| row.0).chain(NOT_PROVOKED.iter().map(|(code, _)| *code)).collect();
    let (_, codes) = source.split_once("\ncodes! {").unwrap();
    let (codes, _) = codes.split_once("\n}").unwrap();
    let codes: BTreeSet<&str> =
        codes.lines().filter(|line| line.contains(" = ")).filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(listed, codes);
    assert_eq!(listed.len(), TABLE.len() + NOT_PROVOKED.len(), "a code is listed twice");
}

/// Those that cannot be provoked as well: an object in the source has no spaces, but for a few things that are named so.
#[test]
fn objects_in_the_source_are_names() {
    const NAMES: &[&str] = &["standard input", "standard output", "working directory"];
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut seen, mut sentences) = (0, Vec::new());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in
            ["Error::new(", "Error::os(", "Error::of_io(", ".context(", ".doing(", "Error::invalid(", "Error::usage("]
        {
            for (_, arguments) in text.match_indices(call).filter_map(|(at, _)| text[at..].split_once('(')) {
                let arguments = arguments.trim_start();
                let object = match arguments.strip_prefix("Code::") {
                    Some(rest) => rest.split_once(',').unwrap().1.trim_start(),
                    None => arguments,
                };
                let literal =
                    object.trim_start_matches('&').strip_prefix("format!(").unwrap_or(object).strip_prefix('"');
                let Some((literal, _)) = literal.and_then(|literal| literal.split_once('"')) else { continue };
                seen += 1;
                if literal.contains(' ') && !NAMES.contains(&literal) {
                    sentences.push(format!("{}: {literal}", path.display()));
                }
            }
        }
    }
    assert!(seen > 150, "only {seen} literals were found: have the calls other names now?");
    assert!(sentences.is_empty(), "{}", sentences.join("\n"));
}

/// The object with placeholders.
fn plain(b: &Bundle, object: &str) -> String {
    let object = object.replace(b.path().to_str().unwrap(), "BUNDLE");
    let object = match (object.starts_with("/sys/fs/cgroup/"), object.split_once(&format!("berth-test/{}", b.id))) {
        (true, Some((_, below))) => format!("CGROUP{below}"),
        _ => object.replace(&b.id, "ID"),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    object.split('/').map(|part| if digits(part) { "PID" } else { part }).collect::<Vec<_>>().join("/")
}

/// The error that a command line logs; `ID` is the container's.
fn log(b: &Bundle, args: &[&str]) -> Option<Value> {
    log_of(b, Command::new(env!("CARGO_BIN_EXE_hull")), args)
}

fn log_of(b: &Bundle, mut program: Command, args: &[&str]) -> Option<Value> {
    let file = b.path().join("log");
    let _ = std::fs::remove_file(&file);
    let args = args.iter().map(|word| if *word == "ID" { b.id.as_str() } else { word });
    program.args(["--log-format", "json", "--log"]).arg(&file).arg("--root").arg(b.records()).args(args);
    program.current_dir(b.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = program.status().unwrap();
    let lines = std::fs::read_to_string(&file).unwrap_or_default();
    let line = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line["level"] == "error");
    assert!(!status.success() && line.is_some(), "{status}: no error in {lines:?}");
    line
}

fn run(b: &Bundle) -> Option<Value> {
    b.write();
    log(b, &["run", "ID"])
}

/// The error of a command on a running container.
fn running(b: &Bundle, args: &[&str]) -> Option<Value> {
    start(b);
    log(b, args)
}

fn start(b: &Bundle) {
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
}

/// Runs the program after a shell script, in a mount namespace of its own.
fn after(b: &Bundle, unshare: &[&str], script: &str, args: &[&str]) -> Option<Value> {
    let mut program = Command::new("unshare");
    let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
    program.args(unshare).args(["sh", "-c", &script, env!("CARGO_BIN_EXE_hull")]);
    log_of(b, program, args)
}

/// Runs the program without a capability.
fn without_capability(b: &Bundle, name: &str, args: &[&str]) -> Option<Value> {
    let mut program = Command::new("setpriv");
    program.arg(format!("--bounding-set=-{name}")).arg(env!("CARGO_BIN_EXE_hull"));
    log_of(b, program, args)
}

fn linux(b: &mut Bundle) -> &mut Linux {
    b.spec.linux.as_mut().unwrap()
}

fn namespaces(b: &mut Bundle) -> &mut Vec<Namespace> {
    &mut linux(b).namespaces
}

fn namespace(b: &mut Bundle, r#type: NamespaceType) {
    namespaces(b).push(Namespace { r#type, path: None });
}

/// A user namespace with so many ids.
fn map(b: &mut Bundle, size: u32) {
    namespace(b, NamespaceType::User);
    let ids = vec![IdMapping { container_id: 0, host_id: 100_000, size }];
    linux(b).uid_mappings = ids.clone();
    linux(b).gid_mappings = ids;
}

fn mount(b: &mut Bundle, at: &str, kind: &str, source: Option<&str>, options: &[&str]) {
    b.spec.mounts.push(Mount {
        destination: at.into(),
        r#type: Some(kind.into()),
        source: source.map(str::to_owned),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    });
}

fn profile(rule: Rule) -> Seccomp {
    Seccomp { default_action: Action::Allow, syscalls: vec![rule], ..Seccomp::default() }
}

fn pids(limit: i64) -> Resources {
    Resources { pids: Some(resources::Pids { limit: Some(limit) }), ..Resources::default() }
}

fn damaged_record(b: &mut Bundle) -> Option<Value> {
    let record = b.records().join(&b.id);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("state.json"), "no JSON").unwrap();
    log(b, &["state", "ID"])
}

fn occupied_cgroup(b: &mut Bundle) -> Option<Value> {
    let hierarchy = ["pids", "."]
        .map(|name| Path::new("/sys/fs/cgroup").join(name))
        .into_iter()
        .find(|p| p.join("cgroup.procs").exists())?;
    let used = hierarchy.join("berth-test").join(&b.id);
    std::fs::create_dir_all(&used).unwrap();
    let mut inside = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(used.join("cgroup.procs"), inside.id().to_string()).unwrap();
    let line = run(b);
    inside.kill().unwrap();
    inside.wait().unwrap();
    until("the end of the cgroup", || std::fs::remove_dir(&used).is_ok());
    line
}

/// A socket cannot be opened, wherever it is mounted.
fn unreadable_cgroup(b: &mut Bundle) -> Option<Value> {
    start(b);
    let _listener = std::os::unix::net::UnixListener::bind(b.path().join("socket")).unwrap();
    let found = format!("find /sys/fs/cgroup -path '*/berth-test/{}/cgroup.procs'", b.id);
    after(b, &["--mount"], &format!("{found} | while read at; do mount --bind socket $at; done"), &["ps", "ID"])
}

fn with_cgroups_read_only(b: &mut Bundle, args: &[&str], ended: bool) -> Option<Value> {
    start(b);
    if ended {
        assert!(b.hull_detached(&["kill", &b.id, "KILL"]));
        until("the end", || status(b) == "stopped");
    }
    after(
        b,
        &["--mount"],
        "grep -o ' /sys/fs/cgroup[^ ]* ' /proc/self/mounts | while read at; do mount -o remount,bind,ro $at; done",
        args,
    )
}

fn without_bus(b: &mut Bundle) -> Option<Value> {
    linux(b).cgroups_path = Some(format!(":test:{}", b.id));
    b.write();
    after(b, &["--mount"], "mount -t tmpfs none /run", &["--systemd-cgroup", "run", "ID"])
}

/// In a user namespace that may have no namespaces of that kind.
fn without_namespaces(b: &mut Bundle, kind: &str) -> Option<Value> {
    linux(b).cgroups_path = None;
    b.spec.mounts.clear();
    linux(b).masked_paths.clear();
    linux(b).readonly_paths.clear();
    b.write();
    let script = format!("echo 0 > /proc/sys/user/max_{kind}_namespaces");
    after(b, &["--user", "--map-root-user", "--mount"], &script, &["--cgroup-manager", "disabled", "run", "ID"])
}

fn mapped_proc(b: &mut Bundle) -> Option<Value> {
    mount(b, "/x", "bind", Some("/proc/sys"), &[]);
    let ids = vec![IdMapping { container_id: 0, host_id: 100_000, size: 1 }];
    let mount = b.spec.mounts.last_mut().unwrap();
    (mount.uid_mappings, mount.gid_mappings) = (ids.clone(), ids);
    run(b)
}

/// Where "/" is no mount, its propagation cannot be set.
fn in_plain_root(b: &mut Bundle) -> Option<Value> {
    b.write();
    let root = b.path().join("plain");
    std::fs::create_dir(&root).unwrap();
    let script = format!(
        "cd {}; for d in /*; do if [ -L $d ]; then cp -P $d .; elif [ -d $d ]; then mkdir .$d; mount --rbind $d .$d; fi; done; set -- chroot {0} \"$0\" \"$@\"; \"$@\"; exit",
        root.display()
    );
    after(b, &["--mount"], &script, &["run", "--bundle", b.path().to_str().unwrap(), "ID"])
}

fn linked_console(b: &mut Bundle) -> Option<Value> {
    b.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    symlink("/etc/passwd", b.path().join("rootfs/dev/console")).unwrap();
    b.spec.process.as_mut().unwrap().terminal = true;
    b.write();
    let socket = b.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    log(b, &["create", "--console-socket", socket.to_str().unwrap(), "ID"])
}

fn without_wasm(b: &mut Bundle) -> Option<Value> {
    b.spec.annotations.insert("run.oci.handler".into(), "wasm".into());
    b.write();
    let config = b.path().join("wasm.json");
    std::fs::write(&config, r#"{"program": "/no/such"}"#).unwrap();
    log(b, &["--wasm-config", config.to_str().unwrap(), "run", "ID"])
}
