//! The command line.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, bundle, text};

pub(crate) fn status(b: &Bundle) -> String {
    let output = b.hull(&["state", &b.id]);
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    state["status"].as_str().unwrap_or("").to_owned()
}

pub(crate) fn until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "{what} did not happen");
    }
}

fn cgroups_left(b: &Bundle) -> Vec<String> {
    let mut out = Vec::new();
    for base in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let path = base.path().join("berth-test").join(&b.id);
        if path.exists() {
            out.push(path.display().to_string());
        }
    }
    out
}

#[test]
fn run_gives_output_and_exit_status_and_leaves_nothing() {
    let Some(b) = bundle("run", "echo $(cat /proc/sys/kernel/hostname) $$; exit 7") else { return };
    b.write();
    let output = b.hull(&["run", &b.id]);
    assert_eq!(text(&output.stdout), "hull-test 1", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
    assert!(!b.records().join(&b.id).exists());
}

#[test]
fn a_cgroup_in_use_is_refused_and_the_other_hierarchies_are_left_as_they_were() {
    let Some(b) = bundle("in-use", "true") else { return };
    let Some(hierarchy) =
        ["pids", "memory"].iter().map(|name| Path::new("/sys/fs/cgroup").join(name)).find(|p| p.is_dir())
    else {
        println!("skipped: no cgroups of version 1");
        return;
    };
    b.write();
    let used = hierarchy.join("berth-test").join(&b.id);
    std::fs::create_dir_all(&used).unwrap();
    let mut inside = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(used.join("cgroup.procs"), inside.id().to_string()).unwrap();
    let output = b.hull(&["run", &b.id]);
    let left = cgroups_left(&b);
    let alive = inside.try_wait().unwrap().is_none();
    inside.kill().unwrap();
    inside.wait().unwrap();
    until("the end of the cgroup", || std::fs::remove_dir(&used).is_ok());
    assert!(!output.status.success() && text(&output.stderr).contains("is not empty"), "{}", text(&output.stderr));
    assert_eq!(left, [used.display().to_string()]);
    assert!(alive, "a process that is none of the container's was killed");
    assert!(!b.records().join(&b.id).exists());
}

#[test]
fn a_container_goes_through_its_life() {
    let Some(b) = bundle("life", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    assert_eq!(status(&b), "created");
    assert!(b.hull_detached(&["start", &b.id]));
    assert_eq!(status(&b), "running");
    let output = b.hull(&["exec", "--user", "1000:1001", &b.id, "sh", "-c", "id -u; id -g; exit 3"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("1000\n1001", Some(3)));
    assert!(b.hull_detached(&["pause", &b.id]));
    assert_eq!(status(&b), "paused");
    assert!(b.hull_detached(&["resume", &b.id]));
    assert!(!b.hull_detached(&["delete", &b.id]), "a running container is not deleted");
    assert!(b.hull_detached(&["kill", &b.id, "KILL"]));
    until("the end", || status(&b) == "stopped");
    assert!(b.hull_detached(&["delete", &b.id]));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
}

#[test]
fn only_standard_streams_are_open_in_the_program() {
    let Some(b) = bundle("fds", "echo /proc/self/fd/*") else { return };
    b.write();
    let output = b.hull(&["run", &b.id]);
    // The fourth is the directory the shell lists.
    assert_eq!(text(&output.stdout), "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3");
}

#[test]
fn a_failed_create_leaves_nothing_and_says_why() {
    let Some(mut b) = bundle("fail", "true") else { return };
    if let Some(process) = &mut b.spec.process {
        process.args = vec!["no-such-program".to_owned()];
    }
    b.write();
    let output = b.hull(&["--log-format", "json", "run", &b.id]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
    assert_eq!(line["code"], "exec");
    assert_eq!(line["phase"], "process");
    assert!(line["msg"].as_str().unwrap().contains("executable file not found in $PATH"));
    assert_eq!(cgroups_left(&b), Vec::<String>::new());
    assert!(!b.records().join(&b.id).exists());
}

#[test]
fn a_file_over_a_directory_is_an_error_that_says_so() {
    let Some(mut b) = bundle("over", "true") else { return };
    let (source, destination) = ("/bin/busybox", "/etc");
    b.spec.mounts.push(hull::spec::Mount {
        destination: destination.to_owned(),
        source: Some(source.to_owned()),
        options: vec!["bind".to_owned()],
        ..<_>::default()
    });
    b.write();
    let output = b.hull(&["run", &b.id]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot mount /etc: not a directory"), "{said}");
}

#[test]
fn delete_force_cleans_up_after_a_killed_runtime() {
    let Some(b) = bundle("killed", "true") else { return };
    b.write();
    // A runtime that dies in the middle of creation, again and again at another moment.
    for microseconds in [500u64, 1500, 3000, 5000, 8000, 12_000] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hull"))
            .arg("--root")
            .arg(b.records())
            .args(["create", &b.id])
            .current_dir(b.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_micros(microseconds);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = b.hull(&["delete", "--force", &b.id]);
        assert!(output.status.success(), "{microseconds}: {}", text(&output.stderr));
        assert_eq!(cgroups_left(&b), Vec::<String>::new(), "{microseconds}");
        assert!(!b.records().join(&b.id).exists());
    }
}

#[test]
fn phases_of_a_start_are_recorded() {
    let Some(b) = bundle("phases", "true") else { return };
    b.write();
    let before = Instant::now();
    assert!(b.hull_detached(&["--timeline", "timeline.json", "run", &b.id]));
    let whole = before.elapsed().as_nanos();
    let text = std::fs::read_to_string(b.path().join("timeline.json")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let over = |phase: &str| {
        let line = lines.iter().find(|l| l["phase"] == phase).unwrap_or_else(|| panic!("{phase} is missing in {text}"));
        line["ns"].as_u64().unwrap()
    };
    // Each line was written when its phase was over, by one of two processes: of each, the times grow.
    assert!(lines.iter().all(|line| u128::from(line["ns"].as_u64().unwrap()) < whole), "{whole} ns: {text}");
    for own in [&["namespaces", "rootfs"][..], &["config", "state", "sources", "cgroup", "init", "started", "deleted"]]
    {
        let times: Vec<u64> = lines
            .iter()
            .filter(|l| own.contains(&l["phase"].as_str().unwrap()))
            .map(|l| l["ns"].as_u64().unwrap())
            .collect();
        assert!(times.len() == own.len() && times.is_sorted_by(|a, b| a < b), "{own:?}: {text}");
    }
    // The runtime makes the cgroup while the container's process makes its namespaces: of the others, each is over before the next can be.
    for order in [["config", "cgroup", "started", "deleted"], ["config", "namespaces", "rootfs", "started"]] {
        assert!(order.is_sorted_by_key(|phase| over(phase)), "not in the order {order:?}: {text}");
    }
    assert!(over("config") > 0 && u128::from(over("deleted")) < whole, "{whole} ns: {text}");
}

#[test]
fn the_exit_status_is_kept_until_the_container_is_deleted() {
    let Some(b) = bundle("wait", "exit 9") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    let mut waiting = std::process::Command::new(env!("CARGO_BIN_EXE_hull"));
    waiting.arg("--root").arg(b.records()).args(["wait", &b.id]).stdout(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    // It has its handle of the process before that can end.
    until("the wait", || {
        let handles = std::fs::read_dir(format!("/proc/{}/fd", waiting.id())).into_iter().flatten().flatten();
        handles.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.ends_with("anon_inode:[pidfd]"))
    });
    assert!(b.hull_detached(&["start", &b.id]));
    let output = waiting.wait_with_output().unwrap();
    if !output.status.success() {
        println!("skipped: this kernel keeps the status for the parent alone");
        return;
    }
    assert_eq!(text(&output.stdout), "9");
    assert_eq!(text(&b.hull(&["wait", &b.id]).stdout), "9");
    let state: serde_json::Value = serde_json::from_slice(&b.hull(&["state", &b.id]).stdout).unwrap();
    assert_eq!((&state["status"], &state["exitStatus"]), (&"stopped".into(), &9.into()));
    assert!(b.hull_detached(&["delete", &b.id]));
    assert!(!b.hull(&["wait", &b.id]).status.success());
}

/// And the caller, who waits for the ends of the pipes that it gave, is not kept.
#[test]
fn a_detached_run_that_keeps_has_the_exit_status_although_nobody_waited() {
    let Some(b) = bundle("keep", "exit 9") else { return };
    b.write();
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_hull"));
    run.arg("--root").arg(b.records()).args(["run", "--detach", "--keep", &b.id]).current_dir(b.path());
    let output = run.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    until("the end", || status(&b) == "stopped");
    if !kernel_tells_everybody() {
        println!("skipped: this kernel keeps the status for the parent alone");
        return;
    }
    until("the status", || text(&b.hull(&["wait", &b.id]).stdout) == "9");
    assert!(b.hull_detached(&["delete", &b.id]));
}

#[test]
fn an_exit_status_that_was_told_is_not_forgotten() {
    let Some(b) = bundle("told", "exit 9") else { return };
    b.write();
    // The container's process becomes a child of this one, which leaves it unwaited for a while.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    assert!(b.hull_detached(&["create", &b.id]));
    let state = || serde_json::from_slice::<serde_json::Value>(&b.hull(&["state", &b.id]).stdout).unwrap();
    let pid = i32::try_from(state()["pid"].as_i64().unwrap()).ok().and_then(rustix::process::Pid::from_raw);
    assert!(b.hull_detached(&["start", &b.id]));
    until("the end", || state()["status"] == "stopped");
    assert_eq!(state()["exitStatus"], 9);
    let taken = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(taken.1.exit_status(), Some(9));
    assert_eq!(state()["exitStatus"], 9);
    assert_eq!(text(&b.hull(&["wait", &b.id]).stdout), "9");
}

#[test]
fn version_and_info_say_what_is_there() {
    let Some(b) = bundle("info", "true") else { return };
    let said = |args: &[&str]| {
        let output = b.hull(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let version = format!("hull version {}\nspec: 1.3.0", env!("CARGO_PKG_VERSION"));
    for form in ["version", "--version", "-v"] {
        assert_eq!(said(&[form]), version);
    }
    let info = said(&["info"]);
    let value = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}: {info}"));
        line.trim().to_owned()
    };
    assert_eq!((value("version"), value("spec")), (env!("CARGO_PKG_VERSION").to_owned(), "1.3.0".to_owned()));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(value("kernel"), format!("{} {}", release.trim(), std::env::consts::ARCH));
    assert_eq!(value("root"), b.records().to_str().unwrap());
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(value("cgroups") == "version 2", unified, "{info}");
    // Of version 1, where this process is in each hierarchy.
    for own in std::fs::read_to_string("/proc/self/cgroup").unwrap().lines().filter(|_| !unified) {
        let [_, name, path] = own.split(':').collect::<Vec<_>>()[..] else { panic!("{own}") };
        let named = format!("{} at {path}", name.trim_start_matches("name="));
        let left_out = name.is_empty() || (name.starts_with("name=") && name != "name=systemd");
        assert!(left_out || info.lines().any(|line| line.trim() == named), "no {named}: {info}");
    }
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    assert_eq!(value("selinux"), if selinux { "yes" } else { "no" });
    for module in ["apparmor", "landlock"] {
        assert!(!value(module).is_empty());
    }
}

/// Linux 6.15 tells a process' exit status to everybody who holds a pidfd.
fn kernel_tells_everybody() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn a_process_of_another_boot_is_never_taken_for_the_containers() {
    let Some(b) = bundle("boot", "sleep 1000 & wait") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let path = b.records().join(&b.id).join("state.json");
    let journal = std::fs::read_to_string(&path).unwrap();
    let state: serde_json::Value = serde_json::from_str(&journal).unwrap();
    let boot = state["bootId"].as_str().unwrap();
    let start = state["startTime"].as_u64().unwrap();
    for (from, to) in [
        (boot.to_owned(), "00000000-0000-0000-0000-000000000000".to_owned()),
        (format!("\"startTime\":{start}"), format!("\"startTime\":{}", start + 1)),
    ] {
        std::fs::write(&path, journal.replace(&from, &to)).unwrap();
        assert_eq!(status(&b), "stopped", "{from}");
        assert!(!b.hull_detached(&["kill", &b.id, "KILL"]), "{from}");
    }
    std::fs::write(&path, journal).unwrap();
    assert_eq!(status(&b), "running");
}

#[test]
fn explain_names_what_decides() {
    let Some(b) = bundle("explain", "true") else { return };
    b.write();
    let explain = |args: &[&str]| {
        let path = b.path().to_str().unwrap();
        let output = b.hull(&[&["explain", path], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(explain(&["--path", "/proc/kcore"]).contains("maskedPaths"));
    assert!(explain(&["--path", "/proc/sys/kernel/panic"]).contains("readonlyPaths"));
    assert_eq!(explain(&["--syscall", "read"]), "read: allowed, there is no filter");
    assert!(explain(&["--cap", "CAP_SYS_ADMIN"]).contains("CAP_SYS_ADMIN"));
    // What the filter lets through, the kernel may still refuse.
    let mount = explain(&["--syscall", "mount"]);
    assert!(mount.contains("the kernel wants CAP_SYS_ADMIN, which is not in force"), "{mount}");
    let null = explain(&["--path", "/dev/null"]);
    assert!(null.contains("every container has (c 1:3): the device rules allow to read and write it"), "{null}");
    let none = explain(&["--path", "/dev/sda"]);
    assert!(none.contains("no device that hull makes"), "{none}");
    assert!(explain(&[]).contains("runs natively"));
}

#[test]
fn explain_tells_of_every_rule_that_a_path_is_under() {
    let Some(mut b) = bundle("explain-path", "true") else { return };
    let rules = r#"{"readOnly": ["/usr"], "readWrite": ["/etc"], "execute": ["/usr/bin"]}"#;
    b.spec.annotations.insert("dev.hull.landlock".into(), rules.into());
    b.spec.root.as_mut().unwrap().readonly = false;
    b.spec.linux.as_mut().unwrap().readonly_paths.push("/etc/".into());
    b.write();
    let explain = |path: &str| {
        let output = b.hull(&["explain", b.path().to_str().unwrap(), "--path", path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let landlock = |what: &str| format!("\n  annotation dev.hull.landlock: {what} fails with EACCES");
    assert_eq!(
        explain("/etc/passwd"),
        "/etc/passwd: on the root file system\n  linux.readonlyPaths /etc/: writing fails with EROFS".to_owned()
            + &landlock("executing")
    );
    assert!(explain("/usr/lib").ends_with(&landlock("writing, executing")), "{}", explain("/usr/lib"));
    assert!(explain("/usr/bin/env").ends_with(&landlock("writing")));
    assert!(explain("/usrx").ends_with(&landlock("reading, writing, executing")));
}

#[test]
fn explain_says_what_the_device_rules_refuse() {
    let Some(mut b) = bundle("explain-device", "true") else { return };
    let linux = b.spec.linux.as_mut().unwrap();
    linux.devices = serde_json::from_str(r#"[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]"#).unwrap();
    let rules = r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 10, "access": "r"}]}"#;
    linux.resources = Some(serde_json::from_str(rules).unwrap());
    b.write();
    let said = text(&b.hull(&["explain", "--path", "/dev/fuse", b.path().to_str().unwrap()]).stdout);
    assert!(said.contains("(c 10:229): the device rules refuse writing with EPERM"), "{said}");
}

#[test]
fn explain_says_of_a_call_what_the_filter_does() {
    let Some(mut b) = bundle("explain-syscall", "true") else { return };
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["prctl"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_LT"}]},
        {"names": ["read", "prctl"], "action": "SCMP_ACT_ALLOW"}]}"#;
    b.spec.linux.as_mut().unwrap().seccomp = Some(serde_json::from_str(profile).unwrap());
    b.write();
    let explain = |name: &str| b.hull(&["explain", "--syscall", name, b.path().to_str().unwrap()]);
    for (name, said) in [
        ("read", "read: allow"),
        ("write", "write: fail with EPERM, no rule names it"),
        // An unconditional rule replaces the others, and the profile knows nothing of newer calls.
        ("prctl", "prctl: allow"),
        ("clone", "clone: allow when argument 0 < 0x7\nclone: fail with EPERM otherwise"),
        ("openat2", "openat2: fail with ENOSYS, no rule names it"),
    ] {
        assert_eq!(text(&explain(name).stdout), said);
    }
    let unknown = explain("raed");
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("no system call of that name"));
}

#[test]
fn explain_names_the_handler_of_webassembly() {
    let Some(mut b) = bundle("explain-wasm", "true") else { return };
    b.spec.annotations.insert("run.oci.handler".to_owned(), "wasm".to_owned());
    b.write();
    let wasm = b.path().join("wasm.json");
    std::fs::write(&wasm, r#"{"program": "/bin/sh", "cache": ""}"#).unwrap();
    let output = b.hull(&["--wasm-config", wasm.to_str().unwrap(), "explain", b.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("WebAssembly: /bin/sh runs it") && said.contains("run.oci.handler=wasm"), "{said}");
}

#[test]
fn landlock_by_annotation_takes_rights_away() {
    let script = "cat /etc/secret || echo refused; cat /tmp/open; echo x > /tmp/new && echo written";
    let Some(mut b) = bundle("landlock", script) else { return };
    for (file, contents) in [("etc/secret", "secret\n"), ("tmp/open", "open\n")] {
        std::fs::write(b.path().join("rootfs").join(file), contents).unwrap();
    }
    let rules = r#"{"execute": ["/bin"], "readWrite": ["/tmp"]}"#;
    b.spec.annotations.insert("dev.hull.landlock".to_owned(), rules.to_owned());
    b.write();
    let output = b.hull(&["run", &b.id]);
    let said = text(&output.stderr);
    if said.contains("landlock") {
        println!("skipped: {said}");
        return;
    }
    assert_eq!(text(&output.stdout), "refused\nopen\nwritten", "{said}");
}

#[test]
fn several_containers_by_one_call() {
    let Some(b) = bundle("several", "sleep 1000 & wait") else { return };
    // `create ID...` takes each id's bundle from the folder of that name.
    let ids: Vec<String> = ["a", "b"].iter().map(|n| format!("{}-{n}", b.id)).collect();
    for id in &ids {
        let mut spec = b.spec.clone();
        spec.root.as_mut().unwrap().path = b.path().join("rootfs").to_str().unwrap().to_owned();
        spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/berth-test/{id}"));
        std::fs::create_dir(b.path().join(id)).unwrap();
        std::fs::write(b.path().join(id).join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    }
    let all = |command: &str| b.hull_detached(&[command, &ids[0], &ids[1]]);
    assert!(all("create"));
    assert!(all("start"));
    let listed = text(&b.hull(&["list", "-q"]).stdout);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ids);
    assert!(b.hull_detached(&["delete", "--force", &ids[0], &ids[1]]));
    assert_eq!(text(&b.hull(&["list", "-q"]).stdout), "");
    // All or none.
    std::fs::write(b.path().join(&ids[1]).join("config.json"), "{}").unwrap();
    assert!(!all("create"));
    assert_eq!(text(&b.hull(&["list", "-q"]).stdout), "");
}

/// Runs a program over a file; `None` where it is not installed.
fn check(program: &str, args: &[&str], file: &std::path::Path) -> Option<(bool, String)> {
    let output = std::process::Command::new(program).args(args).arg(file).env("MANWIDTH", "80").output().ok()?;
    Some((output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr))))
}

#[test]
fn pages_and_completions_are_valid() {
    let Some(b) = bundle("pages", "true") else { return };
    let share = b.path().join("share");
    assert!(b.hull(&["man", "--output", share.to_str().unwrap()]).status.success());
    let pages: Vec<_> = std::fs::read_dir(share.join("man/man8")).unwrap().map(|e| e.unwrap().path()).collect();
    let help = text(&b.hull(&["help"]).stdout);
    let commands = help.lines().skip_while(|l| *l != "COMMANDS:").skip(1).take_while(|l| !l.is_empty()).count();
    assert_eq!(pages.len(), commands + 1);
    for page in &pages {
        // Warnings are what groff has to say about a page.
        let Some((_, said)) = check("groff", &["-man", "-ww", "-z"], page) else {
            println!("skipped: groff is not installed");
            break;
        };
        assert_eq!(said, "", "{}", page.display());
    }
    for page in &pages {
        let Some((fine, said)) = check("man", &["-l"], page) else {
            println!("skipped: man is not installed");
            break;
        };
        let name = page.file_stem().unwrap().to_str().unwrap().replace("hull-", "hull ");
        assert!(fine && said.contains("SYNOPSIS") && said.contains(&name), "{}: {said}", page.display());
    }
    let completions = [
        ("bash", "bash-completion/completions/hull"),
        ("zsh", "zsh/vendor-completions/_hull"),
        ("fish", "fish/vendor_completions.d/hull.fish"),
    ];
    for (shell, file) in completions {
        match check(shell, &["-n"], &share.join(file)) {
            Some((fine, said)) => assert!(fine && said.is_empty(), "{shell}: {said}"),
            None => println!("skipped: {shell} is not installed"),
        }
    }
    for (shell, file) in completions {
        let complete =
            |line: &str| crate::shells::complete(shell, Path::new(env!("CARGO_BIN_EXE_hull")), &share.join(file), line);
        for (line, word) in
            [("hull che", "checkpoint"), ("hull --de", "--debug"), ("hull --debug exec --ig", "--ignore-paused")]
        {
            let Some(said) = complete(line) else {
                println!("skipped: {shell} is not installed");
                break;
            };
            // fish explains its words, zsh tells the whole line.
            let completed = said.split(['\t', ' ']).any(|said| said == word);
            assert!(completed, "{shell}: {line:?} becomes {said:?}");
        }
    }
}
