//! Configurations and command lines on which hull differed from runc or crun, and was wrong.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, bundle, text};
use crate::program::{status, until};

/// Runs the bundle with a value at a JSON pointer, whose parents are there.
fn with(b: &Bundle, pointer: &str, value: Value) -> (bool, String) {
    let mut config = serde_json::to_value(&b.spec).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
    std::fs::write(b.path().join("config.json"), config.to_string()).unwrap();
    let output = b.hull(&["run", &b.id]);
    (output.status.success(), text(&output.stderr))
}

/// Ends when the command does.
fn detached(b: &Bundle, args: &[&str], variable: (&str, &str)) -> String {
    let log = b.path().join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["--log".as_ref(), log.as_os_str(), "--root".as_ref(), b.records().as_os_str()])
        .args(args)
        .env(variable.0, variable.1)
        .current_dir(b.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ended = None;
    until("the end of the command", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert!(ended.unwrap().success(), "{log}");
    log
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() {
    let Some(b) = bundle("meaningless", "true") else { return };
    for (pointer, value, word) in [
        ("/process/env", json!(["PATH=/bin", "ALONE"]), "ALONE"),
        ("/process/execCPUAffinity", json!({"final": "3-1"}), "3-1"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 100}), "nice 100"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 0}), "priority 0"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 10}]), "hard"),
        ("/annotations", json!({"": "nameless"}), "annotations"),
        ("/hooks", json!({"poststop": [{"path": "/bin/true", "env": ["ALONE"]}]}), "NAME=value"),
        ("/mounts", json!([{"destination": "/", "type": "tmpfs", "source": "x"}]), "root.path"),
        ("/mounts", json!([{"destination": "/m", "source": "/", "options": ["bind", "idmap"]}]), "uidMappings"),
        ("/mounts", json!([{"destination": "/m", "type": "tmpfs", "options": ["src-nofollow"]}]), "src-nofollow"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]), "pid is given twice"),
        ("/linux/namespaces", json!([{"path": "/proc/self/ns/mnt"}]), "type"),
        ("/linux/seccomp", json!({"syscalls": []}), "defaultAction"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}), "listenerPath"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_TRAP"}]}),
            "syscalls[0].names",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"]}]}), "action"),
    ] {
        let (made, said) = with(&b, pointer, value.clone());
        assert!(!made && said.contains(word), "{pointer} {value}: {said}");
    }
}

#[test]
fn what_keeps_a_program_from_running_is_told() {
    let Some(b) = bundle("unrunnable", "true") else { return };
    for (path, content) in [("plain", "text"), ("script", "#!/no/such/interpreter\n")] {
        std::fs::write(b.path().join("rootfs").join(path), content).unwrap();
    }
    let script = b.path().join("rootfs/script");
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (program, words) in [
        ("/plain", ["permission denied", "not executable"]),
        ("/etc", ["permission denied", "not a regular file"]),
        ("/script", ["no such file", "interpreter"]),
        ("/nothing", ["no such file", "/nothing"]),
        ("nothing", ["executable file not found in $PATH", "nothing"]),
    ] {
        let (made, said) = with(&b, "/process/args", json!([program]));
        assert!(!made && words.iter().all(|word| said.contains(word)), "{program}: {said}");
    }
}

/// The system calls that set ids take this number for "as it is", so that the process would be root.
#[test]
fn the_number_of_no_user_is_refused() {
    let Some(b) = bundle("nobody", "id -u") else { return };
    for ids in [json!({"uid": u32::MAX}), json!({"gid": u32::MAX}), json!({"additionalGids": [u32::MAX]})] {
        let (made, said) = with(&b, "/process/user", ids.clone());
        assert!(!made && said.contains("4294967295"), "{ids}: {said}");
    }
    let process = json!({"args": ["/bin/id", "-u"], "cwd": "/", "user": {"uid": u32::MAX}}).to_string();
    std::fs::write(b.path().join("process.json"), process).unwrap();
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    let output = b.hull(&["exec", "--process", "process.json", &b.id]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(255), ""));
}

#[test]
fn capabilities_that_the_runtime_has_not_are_told() {
    let Some(mut b) = bundle("ungranted", "true") else { return };
    let held = ["CAP_KILL", "CAP_WAKE_ALARM"];
    let sets = json!({"bounding": held, "permitted": held, "effective": held});
    b.spec.process.as_mut().unwrap().capabilities = serde_json::from_value(sets).unwrap();
    b.write();
    let without = Command::new("setpriv")
        .args(["--bounding-set", "-wake_alarm", env!("CARGO_BIN_EXE_hull"), "--root"])
        .arg(b.records())
        .args(["run", &b.id])
        .current_dir(b.path())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = without else {
        println!("skipped: there is no setpriv (package util-linux)");
        return;
    };
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("level=warning"), "{said}");
    assert!(said.contains("CAP_WAKE_ALARM") && !said.contains("CAP_KILL"), "{said}");
    b.spec.process.as_mut().unwrap().capabilities = None;
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    let output = b.hull(&["exec", "--cap", "CAP_NONE", &b.id, "true"]);
    assert!(output.status.success() && text(&output.stderr).contains("CAP_NONE"), "{}", text(&output.stderr));
}

#[test]
fn each_poststop_hook_that_fails_is_told() {
    let Some(mut b) = bundle("poststop", "true") else { return };
    let hook = |said: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {said} >&2; exit 3")]});
    b.spec.hooks = serde_json::from_value(json!({"poststop": [hook("first"), hook("second")]})).unwrap();
    b.write();
    let run = b.hull(&["run", &b.id]);
    assert!(b.hull_detached(&["create", &b.id]));
    let delete = b.hull(&["delete", "--force", &b.id]);
    for output in [run, delete] {
        let said = text(&output.stderr);
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("level=warning")).collect();
        assert!(output.status.success() && lines.len() == 2, "{said}");
        assert!(lines[0].contains("first") && lines[1].contains("second"), "{said}");
    }
}

/// runtime.md, lifecycle: when a creation hook fails, the container is destroyed and the poststop hooks run. They run as well when the
/// creation fails later, because what the hooks did has to be undone.
#[test]
fn a_creation_that_fails_after_its_hooks_began_ends_with_poststop() {
    let Some(mut b) = bundle("undone", "true") else { return };
    let log = b.path().join("log");
    let hook = |name: &str, then: &str| {
        let script = format!("echo {name} >> {}; {then}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let mut ran = |hooks: Value, program: &str| {
        let _ = std::fs::remove_file(&log);
        b.spec.hooks = serde_json::from_value(hooks).unwrap();
        b.spec.process.as_mut().unwrap().args = vec![program.to_owned()];
        b.write();
        assert!(!b.hull(&["create", &b.id]).status.success());
        assert!(!b.hull(&["state", &b.id]).status.success());
        std::fs::read_to_string(&log).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let ends = hook("poststop", "true");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let failing = json!({kind: hook(kind, "exit 3"), "poststop": ends});
        assert_eq!(ran(failing, "true"), format!("{kind} poststop"));
        let passing = json!({kind: hook(kind, "true"), "poststop": ends});
        assert_eq!(ran(passing, "/no/such/program"), format!("{kind} poststop"));
    }
    assert_eq!(ran(json!({"poststop": ends}), "/no/such/program"), "");
}

/// `controller[,controller…]:path`, each controller once; a path without controllers is for all and stands alone.
#[test]
fn exec_goes_to_a_group_of_several_controllers() {
    let Some(b) = bundle("controllers", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    let exec = |options: &[&str]| {
        let args: Vec<&str> = options.iter().flat_map(|o| ["--cgroup", o]).collect();
        b.hull(&[&["exec"], args.as_slice(), &[&b.id, "cat", "/proc/self/cgroup"]].concat())
    };
    for wrong in [&["pids:/", "pids:/"][..], &["/", "pids:/"], &["pids:/", "/"]] {
        assert_eq!(exec(wrong).status.code(), Some(255), "{wrong:?}");
    }
    let groups = ["pids", "memory"].map(|name| format!("/sys/fs/cgroup/{name}/berth-test/{}/inner", b.id));
    if !groups.iter().all(|path| std::fs::create_dir(path).is_ok()) {
        println!("skipped: no cgroups of version 1");
        return;
    }
    let output = exec(&["pids,memory:/inner"]);
    let inside = text(&output.stdout).lines().filter(|line| line.ends_with("/inner")).count();
    for path in groups {
        std::fs::remove_dir(path).unwrap();
    }
    assert!(output.status.success() && inside == 2, "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn nobody_waits_for_readiness_that_nobody_is_told_of() {
    let Some(b) = bundle("unnotified", "exec sleep 1000") else { return };
    b.write();
    let socket = b.path().join("gone").display().to_string();
    let log = detached(&b, &["run", "--detach", &b.id], ("NOTIFY_SOCKET", &socket));
    assert!(log.contains(&socket) && log.contains("no such file"), "{log}");
    assert_eq!(status(&b), "running");
}

#[test]
fn a_start_waits_for_the_program_to_be_ready() {
    let Some(b) = bundle("ready", "exec sleep 1000") else { return };
    b.write();
    let outer = b.path().join("outer");
    let listener = UnixDatagram::bind(&outer).unwrap();
    let variable = ("NOTIFY_SOCKET", outer.to_str().unwrap());
    detached(&b, &["create", &b.id], variable);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| detached(&b, &["start", &b.id], variable));
        let inner = b.records().join(&b.id).join("notify/notify.sock");
        until("the start", || status(&b) == "running");
        assert!(!start.is_finished(), "it did not wait");
        until("the message", || UnixDatagram::unbound().unwrap().send_to(b"READY=1\n", &inner).is_ok());
        start.join().unwrap();
    });
    let mut told = [0; 64];
    listener.set_nonblocking(true).unwrap();
    let length = listener.recv(&mut told).unwrap();
    let told = text(&told[..length]);
    assert!(told.starts_with("READY=1\nMAINPID="), "{told}");
}

/// Else one that ends before its container is ready would leave this without its runtime.
#[test]
fn nobody_left_to_tell_of_readiness_is_no_reason_to_leave_the_container() {
    let Some(b) = bundle("untold", "exec sleep 1000") else { return };
    b.write();
    let outer = b.path().join("outer");
    let listener = UnixDatagram::bind(&outer).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["--log".as_ref(), b.path().join("log").as_os_str(), "--root".as_ref(), b.records().as_os_str()])
        .args(["run", &b.id])
        .env("NOTIFY_SOCKET", &outer)
        .current_dir(b.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the start", || status(&b) == "running");
    drop(listener);
    std::fs::remove_file(&outer).unwrap();
    let inner = b.records().join(&b.id).join("notify/notify.sock");
    until("the message", || UnixDatagram::unbound().unwrap().send_to(b"READY=1\n", &inner).is_ok());
    until("the warning", || {
        std::fs::read_to_string(b.path().join("log")).is_ok_and(|log| log.contains("nobody is told"))
    });
    assert!(run.try_wait().unwrap().is_none(), "the runtime has left");
    assert!(b.hull_detached(&["kill", &b.id, "KILL"]));
    assert_eq!(run.wait().unwrap().code(), Some(137));
    assert!(!b.records().join(&b.id).exists());
}

/// As programs in Go write one, which engines are.
#[test]
fn a_console_socket_may_be_abstract() {
    let Some(mut b) = bundle("abstract", "exec sleep 1000") else { return };
    b.spec.process.as_mut().unwrap().terminal = true;
    b.write();
    let name = format!("hull-test-{}", b.id);
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    detached(&b, &["create", "--console-socket", &format!("@{name}"), &b.id], ("TERM", "dumb"));
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap();
}

/// As runc's: 1 for a command line that cannot be read, 255 for a process that could not be started.
#[test]
fn exit_statuses_of_exec_tell_a_wrong_command_line_from_a_failed_start() {
    let Some(b) = bundle("statuses", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    for (flags, expected) in [
        (&["--preserve-fds", "x"][..], 1),
        (&["--additional-gids", "wheel"], 1),
        (&["--nothing"], 1),
        (&["--tty=perhaps"], 1),
        (&["--user", "root"], 255),
        (&["--cwd", "relative"], 255),
        (&["--cgroup", "../above"], 255),
        (&["--preserve-fds", "40"], 255),
        (&[], 0),
    ] {
        let output = b.hull(&[&["exec"], flags, &[&b.id, "true"]].concat());
        assert_eq!(output.status.code(), Some(expected), "{flags:?} {}", text(&output.stderr));
    }
    for (args, expected) in [
        (&["exec", "no-such", "true"][..], 255),
        (&["exec", &b.id, "no-such"], 255),
        (&["exec", &b.id, "sh", "-c", "kill -9 $$"], 137),
        (&["exec"], 1),
        (&["no-such-command"], 3),
        (&["state", "no-such"], 1),
    ] {
        assert_eq!(b.hull(args).status.code(), Some(expected), "{args:?}");
    }
}

/// Else `ps` shows nothing, and `kill --all` says that it signalled what it did not.
#[test]
fn without_a_cgroup_the_processes_are_those_of_the_pid_namespace() {
    let Some(b) = bundle("no-cgroup", "trap 'echo told > /told' TERM; sleep 1000 & wait; exec sleep 1000") else {
        return;
    };
    b.write();
    let hull = |args: &[&str]| b.hull(&[&["--cgroup-manager", "disabled"], args].concat());
    assert!(b.hull_detached(&["--cgroup-manager", "disabled", "run", "--detach", &b.id]));
    let listed = || -> Vec<i32> {
        let output = hull(&["ps", "--format", "json", &b.id]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    until("the second process", || listed().len() == 2);
    assert!(hull(&["kill", "--all", &b.id, "TERM"]).status.success());
    until("the signal", || b.path().join("rootfs/told").exists());
    until("the second process' end", || listed().len() == 1);
    assert!(hull(&["kill", "--all", &b.id, "KILL"]).status.success());
    until("the end", || status(&b) == "stopped");
    assert_eq!(listed(), Vec::<i32>::new());
}

/// As with a cgroup: what is in a nested namespace is still the container's.
#[test]
fn without_a_cgroup_nested_pid_namespaces_are_the_containers_too() {
    let script = "trap : TERM; unshare --pid --fork sh -c 'trap \"echo told > /told\" TERM; echo > /ready; sleep 1000 & wait' & wait; \
                  exec sleep 1000";
    let Some(mut b) = bundle("nested", script) else { return };
    std::os::unix::fs::symlink("busybox", b.path().join("rootfs/bin/unshare")).unwrap();
    let admin = json!({"bounding": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"]});
    b.spec.process.as_mut().unwrap().capabilities = serde_json::from_value(admin).unwrap();
    b.write();
    assert!(b.hull_detached(&["--cgroup-manager", "disabled", "run", "--detach", &b.id]));
    until("the nested process", || b.path().join("rootfs/ready").exists());
    let listed: Vec<i32> = serde_json::from_slice(&b.hull(&["ps", "--format", "json", &b.id]).stdout).unwrap();
    // The first shell, unshare, the nested shell and its child.
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(!listed.contains(&i32::try_from(std::process::id()).unwrap()));
    assert!(b.hull_detached(&["kill", "--all", &b.id, "TERM"]));
    until("the signal", || b.path().join("rootfs/told").exists());
}

#[test]
fn a_resized_window_is_no_signal_for_a_process_without_a_terminal() {
    let script = "trap 'echo > /resized' WINCH; trap 'exit 9' PWR; echo > /ready; sleep 1000 & wait; wait";
    let Some(b) = bundle("resized", script) else { return };
    b.write();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["--root".as_ref(), b.records().as_os_str()])
        .args(["run", &b.id])
        .current_dir(b.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the traps", || b.path().join("rootfs/ready").exists());
    // In the order of their numbers.
    let pid = rustix::process::Pid::from_child(&child);
    for signal in [rustix::process::Signal::WINCH, rustix::process::Signal::POWER] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(!b.path().join("rootfs/resized").exists());
}

#[test]
fn an_empty_signal_is_the_default_one() {
    let Some(b) = bundle("signal", "trap 'exit 9' TERM; echo > /ready; sleep 1000 & wait") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    until("the trap", || b.path().join("rootfs/ready").exists());
    let output = b.hull(&["kill", &b.id, ""]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    until("the end", || status(&b) == "stopped");
    let output = b.hull(&["kill", &b.id, "KILL", "TERM"]);
    assert!(text(&output.stderr).contains("1 to 2 argument(s)"), "{}", text(&output.stderr));
}

#[test]
fn a_restore_without_an_image_says_so() {
    let Some(b) = bundle("unsaved", "true") else { return };
    b.write();
    std::fs::create_dir(b.path().join("empty")).unwrap();
    for (image, word) in [("none", "none: no such file"), ("empty", "it holds no checkpoint")] {
        let output = b.hull(&["restore", "--image-path", image, &b.id]);
        assert!(!output.status.success() && text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
}
