//! The monitor, with a real OCI runtime.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_sandbox::monitor::{MonitorError, MonitorHandle, Outcome, Spec, adopt, spawn};
use berth_supervisor_protocol::client::{Client, ClientError};
use berth_supervisor_protocol::{ErrorCode, Exec, ExitStatus, Reply, Request, TerminalOpen};
use serde_json::{Value, json};

use crate::harness::{berth_init, collect, eventually, read_until, sh, skip_unless_root};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The runtime to test with: `BERTH_TEST_RUNTIME`, else runc.
fn runtime() -> Option<PathBuf> {
    let named = std::env::var_os("BERTH_TEST_RUNTIME").map(PathBuf::from);
    let found = named.into_iter().chain(["/usr/sbin/runc".into(), "/usr/bin/runc".into()]).find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no OCI runtime (set BERTH_TEST_RUNTIME)");
    }
    found
}

/// A bundle whose root is the host's own files, read-only, in a pid namespace.
struct Bundle {
    dir: tempfile::TempDir,
    runtime: PathBuf,
    id: String,
}

impl Bundle {
    fn new(name: &str, args: &[&str]) -> Option<Self> {
        let runtime = runtime().filter(|_| !skip_unless_root())?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let id = format!("berth-test-{name}-{}", std::process::id());
        let bundle = Self { dir, runtime, id };
        std::fs::create_dir_all(bundle.path("rootfs")).unwrap();
        std::fs::create_dir_all(bundle.path("state")).unwrap();
        std::fs::write(bundle.path("config.json"), serde_json::to_vec(&bundle.config(args)).unwrap()).unwrap();
        Some(bundle)
    }

    fn config(&self, args: &[&str]) -> Value {
        let mounts: Vec<Value> = ["bin", "lib", "lib64", "usr", "etc"]
            .into_iter()
            .filter(|name| Path::new("/").join(name).exists())
            .map(|name| json!({"destination": format!("/{name}"), "source": format!("/{name}"), "type": "bind", "options": ["rbind", "ro"]}))
            .chain([
                json!({"destination": "/proc", "type": "proc", "source": "proc"}),
                json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
                json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}),
                json!({"destination": "/berth-init", "source": berth_init(), "type": "bind", "options": ["bind", "ro"]}),
            ])
            .collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
                "capabilities": {"bounding": ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"]},
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "test",
            "mounts": mounts,
            "linux": {"cgroupsPath": format!("/berth-test/{}", self.id), "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self) -> Spec {
        let mut spec = Spec::new(self.dir.path(), &self.id, &self.runtime);
        spec.runtime_args = vec!["--root".to_owned(), self.path("state").to_str().unwrap().to_owned()];
        spec
    }

    fn listener(&self) -> UnixListener {
        UnixListener::bind(self.path("supervisor.sock")).unwrap()
    }

    fn start(&self, listener: &UnixListener) -> MonitorHandle {
        spawn(berth_init().as_ref(), &self.spec(), listener.as_fd()).unwrap()
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.path("output.log")).unwrap_or_default()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = Command::new(&self.runtime)
            .arg("--root")
            .arg(self.path("state"))
            .args(["delete", "--force", &self.id])
            .output();
    }
}

#[test]
fn exit_status_and_output_are_kept() {
    let Some(bundle) = Bundle::new("exit", &["sh", "-c", "echo to the log; exit 42"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    let mut created = None;
    let started = handle.wait_started(TIMEOUT, |pid| created = Some(pid)).unwrap();
    assert_eq!(created, Some(started.container_pid));
    let exit = handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    assert_eq!((exit.outcome, exit.oom_killed), (Outcome::Code(42), false));
    assert!(bundle.output().contains("to the log"), "{}", bundle.output());
    assert!(adopt(bundle.dir.path()).unwrap().is_none());
    assert_eq!(MonitorHandle::exit_in(bundle.dir.path(), 1).unwrap().outcome, Outcome::Code(42));
    assert!(
        !Path::new(&format!("/proc/{}/stat", handle.info().unwrap().unwrap().monitor.pid)).exists(),
        "the monitor is reaped"
    );
}

#[test]
fn the_supervisor_answers_on_the_inherited_socket_and_is_adopted() {
    let Some(bundle) = Bundle::new("adopt", &["/berth-init", "init", "--listen-fd", "3"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    // Connecting works from the first moment; the answer means ready.
    let mut client = Client::new(UnixStream::connect(bundle.path("supervisor.sock")).unwrap());
    assert!(matches!(client.request(&Request::Hello).unwrap(), Reply::Hello(_)));
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let info = handle.info().unwrap().unwrap();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", info.monitor.pid)).unwrap().count();
    assert!(fds <= 8, "the monitor holds {fds} descriptors: it keeps something of its parent's");
    // As after a restart of the agent: nothing but the directory is known.
    drop(handle);
    let mut adopted = adopt(bundle.dir.path()).unwrap().unwrap();
    assert_eq!(adopted.info().unwrap().unwrap(), info);
    assert!(adopted.try_exit(1).unwrap().is_none());
    drop(listener);
    let memory: u64 = [info.monitor.pid, info.container_pid.unwrap()].into_iter().map(resident_kib).sum();
    println!("resident: supervisor + monitor {memory} KiB");
    assert!(matches!(client.request(&Request::Shutdown { grace_ms: 5000 }).unwrap(), Reply::Done));
    let exit = adopted.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    assert_eq!(exit.outcome, Outcome::Code(0));
    assert!(exit.finished_at_ms > 1);
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse().ok()).unwrap()
}

#[test]
fn a_killed_container_and_a_killed_monitor_are_told_apart() {
    let Some(bundle) = Bundle::new("killed", &["sleep", "1000"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    let started = handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(started.container_pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap().outcome, Outcome::Signal(9));
    drop(bundle);

    let Some(bundle) = Bundle::new("unknown", &["sleep", "1000"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    let started = handle.wait_started(TIMEOUT, |_| {}).unwrap();
    handle.kill_monitor().unwrap();
    let exit = handle.wait_exit(TIMEOUT, || 77).unwrap().unwrap();
    assert_eq!((exit.outcome, exit.finished_at_ms), (Outcome::Unknown, 77));
    assert!(Path::new(&format!("/proc/{}", started.container_pid)).exists(), "the container itself lives");
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(bundle) = Bundle::new("oom", &["tail", "/dev/zero"]) else { return };
    let mut config = bundle.config(&["tail", "/dev/zero"]);
    config["linux"]["resources"] = json!({"memory": {"limit": 32 * 1024 * 1024}});
    std::fs::write(bundle.path("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let exit = handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    assert_eq!((exit.outcome, exit.oom_killed), (Outcome::Signal(9), true));
}

#[test]
fn signals_for_the_agent_do_not_reach_the_monitor() {
    let Some(bundle) = Bundle::new("signals", &["sleep", "1000"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let monitor = handle.info().unwrap().unwrap().monitor.pid;
    let pid = rustix::process::Pid::from_raw(i32::try_from(monitor).unwrap()).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid, "it has a session of its own");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    assert!(handle.try_exit(1).unwrap().is_none());
}

#[test]
fn the_runtimes_own_error_is_passed_on() {
    let Some(bundle) = Bundle::new("wrong", &["/no/such/program"]) else { return };
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    let Err(MonitorError::NotStarted { failure, .. }) = handle.wait_started(TIMEOUT, |_| {}) else {
        panic!("it started")
    };
    assert!(failure.message.contains("/no/such/program"), "{failure}");
    assert!(matches!(handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap().outcome, Outcome::NotStarted(_)));
    let listed =
        Command::new(&bundle.runtime).arg("--root").arg(bundle.path("state")).args(["list", "-q"]).output().unwrap();
    assert!(listed.stdout.is_empty(), "nothing is left: {listed:?}");
    drop(bundle);

    let Some(bundle) = Bundle::new("noruntime", &["true"]) else { return };
    let listener = bundle.listener();
    let spec = Spec { runtime: "/no/such/runtime".into(), ..bundle.spec() };
    let mut handle = spawn(berth_init().as_ref(), &spec, listener.as_fd()).unwrap();
    let Err(MonitorError::NotStarted { failure, .. }) = handle.wait_started(TIMEOUT, |_| {}) else {
        panic!("it started")
    };
    assert!(failure.message.contains("/no/such/runtime does not exist"), "{failure}");
}

#[test]
fn a_loud_container_is_bounded_on_disk() {
    let Some(bundle) = Bundle::new("loud", &["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo end"]) else {
        return;
    };
    let listener = bundle.listener();
    let spec = Spec { log_max_bytes: 1_000_000, ..bundle.spec() };
    let mut handle = spawn(berth_init().as_ref(), &spec, listener.as_fd()).unwrap();
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    let old = std::fs::metadata(bundle.path("output.log.1")).unwrap().len();
    assert!(bundle.output().len() <= 1_000_000 && old <= 1_000_000);
    assert!(bundle.output().ends_with("xend\n"));
}

/// A root file system of one empty layer on a tmpfs, with the mount points that [`Bundle::config`] wants.
struct Ground {
    path: PathBuf,
    mount: PathBuf,
    rootfs: berth_sandbox::rootfs::Rootfs,
}

impl Ground {
    const BASE: u32 = 2_000_000;

    fn new(bundle: &Bundle) -> Self {
        let path = bundle.path("ground");
        std::fs::create_dir(&path).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status().unwrap().success());
        let layer = path.join("layer");
        for name in ["bin", "lib", "lib64", "usr", "etc", "proc", "dev", "tmp", "home"] {
            std::fs::create_dir_all(layer.join(name)).unwrap();
        }
        std::fs::set_permissions(layer.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(layer.join("home"), Some(1000), Some(1000)).unwrap();
        std::fs::write(layer.join("berth-init"), "").unwrap();
        std::fs::copy("/usr/bin/id", layer.join("suid-id")).unwrap();
        std::fs::set_permissions(layer.join("suid-id"), PermissionsExt::from_mode(0o4755)).unwrap();
        berth_sandbox::rootfs::Request::prepare_disk(&path).unwrap();
        let request = berth_sandbox::rootfs::Request {
            uid_base: Self::BASE,
            gid_base: Self::BASE,
            id_count: 65536,
            layers: vec![layer],
            disk: path.clone(),
            upper: "upper".to_owned(),
            work: "work".to_owned(),
        };
        let rootfs = berth_sandbox::rootfs::build(berth_init().as_ref(), &request).unwrap();
        println!("root file system built in {:?}", rootfs.elapsed);
        let mount = bundle.path("rootfs");
        rootfs.attach(&mount).unwrap();
        Self { path, mount, rootfs }
    }

    /// Makes the bundle run in the namespace that mounted the root.
    fn configure(&self, bundle: &Bundle, args: &[&str]) {
        let mut config = bundle.config(args);
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.rootfs.userns.as_raw_fd());
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
        if bundle.runtime.ends_with("runc") {
            // It wants the map of a namespace that is there already.
            let map = json!([{"containerID": 0, "hostID": Self::BASE, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
        std::fs::write(bundle.path("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    }

    fn owner_on_disk(&self, name: &str) -> u32 {
        std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(self.path.join("upper").join(name)).unwrap())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for path in [&self.mount, &self.path] {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

#[test]
fn the_container_lives_in_the_namespace_that_mounted_its_root() {
    let Some(bundle) = Bundle::new("userns", &["true"]) else { return };
    let ground = Ground::new(&bundle);
    ground.configure(&bundle, &["sh", "-c", "id -u; cat /proc/self/uid_map; touch /made; stat -c %u /made"]);
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let exit = handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    let output = bundle.output();
    assert_eq!(exit.outcome, Outcome::Code(0), "{output}");
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", "0", "2000000", "65536", "0"]);
    assert_eq!(ground.owner_on_disk("made"), 0);
    drop(ground);
    let ours = bundle.dir.path().to_str().unwrap();
    eventually("nothing is mounted", || !std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(ours));
}

#[test]
fn the_whole_stack_as_a_user() {
    let Some(bundle) = Bundle::new("whole", &["true"]) else { return };
    let ground = Ground::new(&bundle);
    ground.configure(
        &bundle,
        &["/berth-init", "init", "--listen-fd", "3", "--user", "1000:1000", "--cwd", "/home", "--run-dir", "/tmp/run"],
    );
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let client = || {
        let stream = UnixStream::connect(bundle.path("supervisor.sock")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client::new(stream)
    };
    let sh = |line: &str| {
        let mut client = client();
        client.request(&Request::Exec(sh(line))).unwrap();
        let output = collect(&mut client);
        format!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
    };
    assert_eq!(sh("id -u; pwd; echo mine > file; stat -c %u file"), "1000\n/home\n1000");
    assert_eq!(ground.owner_on_disk("home/file"), 1000);
    assert_eq!(sh("/suid-id -u"), "0", "setuid programs work");
    // The terminal belongs to its user, who can open it by its name.
    let mut terminal = client();
    let open = TerminalOpen {
        argv: Some(["sh", "-c", "echo by name > $(tty); stat -c owner=%u $(tty); read x"].map(str::to_owned).to_vec()),
        attach: true,
        ..TerminalOpen::default()
    };
    assert!(matches!(terminal.request(&Request::TerminalOpen(open)).unwrap(), Reply::Terminal(_)));
    let seen = read_until(&mut terminal, "owner=");
    assert!(seen.contains("by name"), "{seen}");
    // Files are read as the user.
    let secret = Request::ReadFile { path: "/proc/1/environ".to_owned(), max_bytes: 10, user: None };
    assert!(client().request(&secret).is_err(), "process 1 is none of the user's business");
    let Reply::File(info) = client().request(&Request::Stat { path: "file".to_owned(), user: None }).unwrap() else {
        panic!("no file")
    };
    assert_eq!((info.path.as_str(), info.uid), ("/home/file", 1000));
    // Nothing of the host's can be seen.
    assert_eq!(sh("ls /proc | grep -c '^[0-9]' | xargs test 10 -gt && echo few"), "few");
    assert!(matches!(client().request(&Request::Shutdown { grace_ms: 10_000 }).unwrap(), Reply::Done));
    assert_eq!(handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap().outcome, Outcome::Code(0));
}

#[test]
fn a_workspace_at_its_limits_can_still_be_talked_to() {
    let Some(bundle) = Bundle::new("limits", &["true"]) else { return };
    let mut config = bundle.config(&["/berth-init", "init", "--listen-fd", "3"]);
    config["linux"]["resources"] = json!({"memory": {"limit": 64 * 1024 * 1024}, "pids": {"limit": 30}});
    std::fs::write(bundle.path("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    let listener = bundle.listener();
    let mut handle = bundle.start(&listener);
    handle.wait_started(TIMEOUT, |_| {}).unwrap();
    let client = || {
        let stream = UnixStream::connect(bundle.path("supervisor.sock")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client::new(stream)
    };
    // Memory: the kernel takes the program, not process 1.
    let mut eater = client();
    eater.request(&Request::Exec(sh("exec tail /dev/zero"))).unwrap();
    assert_eq!(collect(&mut eater).status, ExitStatus::Signal(9));
    // Processes: a fork bomb that ignores SIGTERM.
    let mut bomb = client();
    let argv = ["bash", "-c", "trap '' TERM HUP; while :; do sleep 1000 & done"].map(str::to_owned).to_vec();
    bomb.request(&Request::Exec(Exec { argv, ..Exec::default() })).unwrap();
    eventually("no process can be had", || {
        let refused = client().request(&Request::Exec(sh("true")));
        matches!(refused, Err(ClientError::Refused { code: ErrorCode::LimitReached, message }) if message.contains("limit"))
    });
    assert!(matches!(client().request(&Request::Hello).unwrap(), Reply::Hello(_)));
    assert!(matches!(client().request(&Request::Shutdown { grace_ms: 500 }).unwrap(), Reply::Done));
    let exit = handle.wait_exit(TIMEOUT, || 1).unwrap().unwrap();
    assert_eq!((exit.outcome, exit.oom_killed), (Outcome::Code(0), true));
}
