//! What the suites of other runtimes found (`runtime/conformance/suites`).

use hull::spec::resources::Memory;

use crate::bundle::{Bundle, bundle, text};
use crate::program::{status, until};

/// What `run` prints, and nothing else.
fn printed(b: &Bundle) -> String {
    b.write();
    let output = b.hull(&["run", &b.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_that_is_copied_adds_no_carriage_returns() {
    let Some(mut b) = bundle("lines", "tty >/dev/null && echo one && echo two") else { return };
    b.spec.process.as_mut().unwrap().terminal = true;
    std::os::unix::fs::symlink("busybox", b.path().join("rootfs/bin/tty")).unwrap();
    assert_eq!(printed(&b), "one\ntwo\n");
}

#[test]
fn an_empty_home_is_none() {
    let Some(mut b) = bundle("home", "echo $HOME") else { return };
    std::fs::write(b.path().join("rootfs/etc/passwd"), "somebody:x:0:0::/home/somebody:/bin/sh\n").unwrap();
    b.spec.process.as_mut().unwrap().env.extend(["HOME=/elsewhere".to_owned(), "HOME=".to_owned()]);
    assert_eq!(printed(&b), "/home/somebody\n");
}

/// Profiles are older than calls that the runtime makes after it has put them on, and some forbid the commonest ones.
#[test]
fn a_filter_without_no_new_privs_does_not_get_in_the_runtimes_way() {
    let Some(mut b) = bundle("early-filter", "echo ran") else { return };
    b.spec.process.as_mut().unwrap().no_new_privileges = false;
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["close_range", "getcwd", "chdir", "faccessat2", "statx"], "action": "SCMP_ACT_ERRNO"}]}"#;
    b.spec.linux.as_mut().unwrap().seccomp = Some(serde_json::from_str(profile).unwrap());
    assert_eq!(printed(&b), "ran\n");
}

#[test]
fn create_container_hooks_begin_in_the_root_file_system() {
    let Some(mut b) = bundle("hook-cwd", "cat /made-by-hook") else { return };
    let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", "echo made > ./made-by-hook"]});
    b.spec.hooks = serde_json::from_value(serde_json::json!({"createContainer": [hook]})).unwrap();
    assert_eq!(printed(&b), "made\n");
}

#[test]
fn the_log_file_gets_the_whole_log() {
    let Some(b) = bundle("log-file", "true") else { return };
    b.write();
    let output = b.hull(&["--debug", "--log", "log", "run", &b.id]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
    let log = std::fs::read_to_string(b.path().join("log")).unwrap();
    assert!(log.contains("level=debug"), "{log}");
}

#[test]
fn each_log_level_has_what_is_worse_than_it() {
    let Some(mut b) = bundle("log-level", "true") else { return };
    b.spec.mounts.push(hull::spec::Mount {
        destination: "/x".into(),
        r#type: Some("bind".into()),
        source: Some("/tmp".into()),
        options: vec!["bind".into(), "dirsync".into()],
        ..hull::spec::Mount::default()
    });
    b.spec.process.as_mut().unwrap().args = vec!["/no/such/program".into()];
    b.write();
    let all = ["error", "warning", "info", "debug"];
    for (name, count) in
        [("panic", 1), ("fatal", 1), ("error", 1), ("warn", 2), ("warning", 2), ("info", 3), ("debug", 4), ("trace", 4)]
    {
        // A failure, a warning and phases; then something to tell and no more.
        for command in [&["run", b.id.as_str()][..], &["delete", "--force", "no-such"]] {
            b.hull(&[&["--log-level", name, "--log", name][..], command].concat());
        }
        let log = std::fs::read_to_string(b.path().join(name)).unwrap();
        let there: Vec<&str> = all.into_iter().filter(|level| log.contains(&format!("level={level} "))).collect();
        assert_eq!(there, all[..count], "{name}: {log}");
    }
}

/// Without SELinux no file system takes one, and its refusal shows who was asked.
#[test]
fn the_label_of_mounts_goes_to_file_systems() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        println!("skipped: SELinux knows the label or not");
        return;
    }
    let Some(mut b) = bundle("mount-label", "true") else { return };
    b.spec.linux.as_mut().unwrap().mount_label = Some("system_u:object_r:container_file_t:s0".into());
    b.write();
    let output = b.hull(&["run", &b.id]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("tmpfs on /dev: ") && said.contains("context"), "{said}");
}

/// The kernel ignores them on a bind mount, and so did hull, without a word.
#[test]
fn options_of_the_file_system_on_a_bind_mount_are_named() {
    let Some(mut b) = bundle("bind-options", "true") else { return };
    b.spec.mounts.push(hull::spec::Mount {
        destination: "/x".into(),
        r#type: Some("bind".into()),
        source: Some("/tmp".into()),
        options: ["bind", "dirsync", "lazytime", "mand", "acl", "iversion"].map(str::to_owned).into(),
        ..hull::spec::Mount::default()
    });
    b.write();
    let output = b.hull(&["--log", "log", "run", &b.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let log = std::fs::read_to_string(b.path().join("log")).unwrap();
    for option in ["dirsync", "lazytime", "mand", "acl", "iversion"] {
        assert!(log.contains(&format!("{option} of bind mount /x has no effect")), "{option}: {log}");
    }
}

#[test]
fn what_is_for_windows_or_gone_is_told_by_name() {
    let Some(mut b) = bundle("refused", "true") else { return };
    b.spec.process.as_mut().unwrap().user.username = Some("administrator".to_owned());
    b.write();
    let output = b.hull(&["run", &b.id]);
    assert!(!output.status.success() && text(&output.stderr).contains("username"), "{}", text(&output.stderr));
    b.spec.process.as_mut().unwrap().user.username = None;
    let said_of = |b: &mut Bundle, memory| {
        let resources = b.spec.linux.as_mut().unwrap().resources.get_or_insert_default();
        resources.memory = Some(memory);
        b.write();
        let output = b.hull(&["run", &b.id]);
        (output.status.success(), text(&output.stderr))
    };
    let (_, said) = said_of(&mut b, Memory { kernel: Some(1 << 30), ..Memory::default() });
    assert!(said.contains("memory.kernel"), "neither refused nor warned of: {said}");
    let (made, said) = said_of(&mut b, Memory { use_hierarchy: Some(false), ..Memory::default() });
    assert!(!made && said.to_lowercase().contains("hierarchy"), "{said}");
    b.spec.linux.as_mut().unwrap().resources = None;
    for (pointer, word) in [
        ("/process/commandLine", "commandLine"),
        ("/windows", "windows"),
        ("/solaris", "solaris"),
        ("/vm", "vm"),
        ("/zos", "zos"),
        ("/freebsd", "freebsd"),
    ] {
        let mut config = serde_json::to_value(&b.spec).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] =
            if key == "commandLine" { "cmd".into() } else { serde_json::json!({}) };
        std::fs::write(b.path().join("config.json"), config.to_string()).unwrap();
        let output = b.hull(&["run", &b.id]);
        assert!(!output.status.success() && text(&output.stderr).contains(word), "{word}: {}", text(&output.stderr));
    }
}

#[test]
fn a_container_is_not_made_in_a_frozen_cgroup() {
    let Some(mut b) = bundle("frozen", "true") else { return };
    let (name, file, word) = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        ("", "cgroup.freeze", "1")
    } else {
        ("freezer/", "freezer.state", "FROZEN")
    };
    let parent = std::path::PathBuf::from(format!("/sys/fs/cgroup/{name}berth-test/{}", b.id));
    std::fs::create_dir_all(&parent).unwrap();
    std::fs::write(parent.join(file), word).unwrap();
    // In the group itself, and in one that would be made below it.
    let refusals = ["", "/below"].map(|below| {
        b.spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/berth-test/{}{below}", b.id));
        b.write();
        let output = b.hull(&["create", &b.id]);
        (output.status.code(), text(&output.stderr))
    });
    std::fs::remove_dir(&parent).unwrap();
    for (code, said) in refusals {
        assert_eq!(code, Some(1));
        assert!(said.contains("container's cgroup unexpectedly frozen"), "{said}");
    }
}

#[test]
fn sigkill_reaches_what_a_shared_pid_namespace_leaves_over() {
    let Some(mut b) = bundle("left-over", "sleep 1000 & exec sleep 1001") else { return };
    b.spec.linux.as_mut().unwrap().namespaces.retain(|n| n.r#type != hull::spec::NamespaceType::Pid);
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let state: serde_json::Value = serde_json::from_slice(&b.hull(&["state", &b.id]).stdout).unwrap();
    let first = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    until("the second process", || b.hull(&["ps", "--format", "json", &b.id]).stdout.contains(&b','));
    rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("the end of the first", || status(&b) == "stopped");
    assert!(b.hull_detached(&["kill", &b.id, "KILL"]));
    until("the end of the second", || text(&b.hull(&["ps", "--format", "json", &b.id]).stdout) == "[]");
    assert!(!b.hull_detached(&["kill", &b.id, "KILL"]), "nothing is left to kill");
    assert!(b.hull_detached(&["delete", &b.id]));
}

#[test]
fn a_list_is_one_line_of_json_and_a_named_root_exists() {
    let Some(b) = bundle("list", "true") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    let list = b.hull(&["list", "--format", "json"]);
    assert_eq!(text(&list.stdout).lines().count(), 1, "{}", text(&list.stdout));
    assert!(b.hull_detached(&["delete", "--force", &b.id]));
    assert!(!b.hull_detached(&["--root", "/no/such/folder", "list"]));
}

#[test]
fn a_path_that_is_masked_twice_is_covered_once() {
    let Some(mut b) = bundle("masked-twice", "grep -c ' /tmp ' /proc/self/mountinfo") else { return };
    b.spec.linux.as_mut().unwrap().masked_paths = vec!["/tmp".to_owned(), "/tmp".to_owned()];
    assert_eq!(printed(&b), "1\n");
}

#[test]
fn a_slave_root_has_the_hosts_mount_as_master() {
    let Some(mut b) = bundle("slave", "cat /proc/self/mountinfo") else { return };
    b.spec.linux.as_mut().unwrap().rootfs_propagation = Some("slave".to_owned());
    b.write();
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "shared", env!("CARGO_BIN_EXE_hull"), "--root"])
        .arg(b.records())
        .args(["run", "--bundle"])
        .arg(b.path())
        .arg(&b.id)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let mounts = text(&output.stdout);
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    assert!(root.contains(" master:") && !root.contains(" shared:"), "{root}\n{}", text(&output.stderr));
}

#[test]
fn a_tmpfs_has_the_mode_of_its_mount_point_or_its_own() {
    let Some(mut b) = bundle("tmpfs-mode", "stat -c %a /there /new") else { return };
    let there = b.path().join("rootfs/there");
    std::fs::create_dir(&there).unwrap();
    std::fs::set_permissions(&there, std::os::unix::fs::PermissionsExt::from_mode(0o710)).unwrap();
    std::os::unix::fs::symlink("busybox", b.path().join("rootfs/bin/stat")).unwrap();
    for destination in ["/there", "/new"] {
        let mount = serde_json::json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
        b.spec.mounts.push(serde_json::from_value(mount).unwrap());
    }
    assert_eq!(printed(&b), "710\n1777\n");
}

/// NVIDIA's and other vendors' hooks enter the container's mount namespace and mount below the root's path on the host.
#[test]
fn create_runtime_hooks_find_the_mounts_made_and_can_add_to_them() {
    let Some(mut b) = bundle("hook-mounts", "cat /there/by-hook") else { return };
    let root = b.path().join("rootfs");
    std::fs::create_dir(root.join("there")).unwrap();
    std::fs::write(b.path().join("file"), "added\n").unwrap();
    let tmpfs = serde_json::json!({"destination": "/there", "type": "tmpfs", "source": "tmpfs"});
    b.spec.mounts.push(serde_json::from_value(tmpfs).unwrap());
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); \
         nsenter --mount --target $pid sh -c 'cd {root} && touch there/by-hook && mount --bind ../file there/by-hook'",
        root = root.display()
    );
    for kind in ["prestart", "createRuntime"] {
        let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
        b.spec.hooks = serde_json::from_value(serde_json::json!({kind: [hook]})).unwrap();
        assert_eq!(printed(&b), "added\n", "{kind}");
    }
}

#[test]
fn a_created_container_ends_by_the_signal_that_ends_a_program() {
    let Some(b) = bundle("created-term", "true") else { return };
    b.write();
    assert!(b.hull_detached(&["create", &b.id]));
    assert!(b.hull_detached(&["kill", &b.id, "WINCH"]));
    assert_eq!(status(&b), "created");
    assert!(b.hull_detached(&["kill", &b.id]));
    until("the end", || status(&b) == "stopped");
}

#[test]
fn start_container_hooks_are_filtered_as_the_process_is() {
    let Some(mut b) = bundle("hook-filter", "true") else { return };
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    b.spec.linux.as_mut().unwrap().seccomp = Some(serde_json::from_str(profile).unwrap());
    let hook = serde_json::json!({"path": "/bin/busybox", "args": ["busybox", "mkdir", "/tmp/made"]});
    b.spec.hooks = serde_json::from_value(serde_json::json!({"startContainer": [hook]})).unwrap();
    for no_new_privileges in [true, false] {
        b.spec.process.as_mut().unwrap().no_new_privileges = no_new_privileges;
        b.write();
        let output = b.hull(&["run", &b.id]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("startContainer hook #0"), "{said}");
        assert!(!b.path().join("rootfs/tmp/made").exists());
    }
}

#[test]
fn a_listener_is_told_of_processes_that_join() {
    use std::io::Read as _;
    let Some(mut b) = bundle("listener", "exec sleep 1000") else { return };
    let path = b.path().join("listener");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "words",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    });
    b.spec.linux.as_mut().unwrap().seccomp = Some(serde_json::from_value(profile).unwrap());
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    assert!(b.hull_detached(&["exec", &b.id, "true"]));
    let messages: Vec<serde_json::Value> = (0..2)
        .map(|_| {
            let mut message = String::new();
            listener.accept().unwrap().0.read_to_string(&mut message).unwrap();
            serde_json::from_str(&message).unwrap()
        })
        .collect();
    for message in &messages {
        assert_eq!((&message["metadata"], &message["state"]["id"]), (&"words".into(), &b.id.as_str().into()));
    }
    assert_eq!(messages[1]["state"]["pid"], messages[0]["pid"]);
    assert_ne!(messages[1]["pid"], messages[0]["pid"]);
}

#[test]
fn groups_above_that_have_no_cpus_yet_are_given_some() {
    let Some(mut b) = bundle("cpuset", "true") else { return };
    let parent = std::path::PathBuf::from(format!("/sys/fs/cgroup/cpuset/berth-test-{}", b.id));
    if std::fs::create_dir(&parent).is_err() {
        println!("skipped: no cpuset hierarchy of version 1");
        return;
    }
    b.spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/berth-test-{}/pod/container", b.id));
    b.write();
    let output = b.hull(&["run", &b.id]);
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for below in ["pod", ""] {
            let _ = std::fs::remove_dir(hierarchy.path().join(format!("berth-test-{}", b.id)).join(below));
        }
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn an_update_to_no_processes_leaves_one() {
    let Some(b) = bundle("update-pids", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    assert!(b.hull_detached(&["update", "--pids-limit", "0", &b.id]));
    let base = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "" } else { "pids/" };
    let file = format!("/sys/fs/cgroup/{base}berth-test/{}/pids.max", b.id);
    assert_eq!(std::fs::read_to_string(file).unwrap().trim(), "1");
}

/// Buildah lists ambient capabilities with nothing inheritable, and what the runtime says is in the output of its builds.
#[test]
fn ambient_capabilities_that_cannot_be_are_told_where_others_are_inheritable() {
    let Some(mut b) = bundle("ambient", "true") else { return };
    let mut said = |inheritable: &[&str]| {
        let capabilities = serde_json::json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": inheritable, "ambient": ["CAP_KILL", "CAP_CHOWN"],
        });
        b.spec.process.as_mut().unwrap().capabilities = serde_json::from_value(capabilities).unwrap();
        b.write();
        text(&b.hull(&["run", &b.id]).stderr)
    };
    assert_eq!(said(&[]), "");
    let warned = said(&["CAP_KILL"]);
    assert!(warned.contains("can't raise ambient capability CAP_CHOWN") && !warned.contains("CAP_KILL"), "{warned}");
}
