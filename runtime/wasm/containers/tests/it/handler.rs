//! Which containers are WebAssembly, and what becomes of the others.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::json;

use hull_wasm_containers::guests::{self, Kind};
use hull_wasm_containers::{Bundle, finish, hull_wasm, ready};

#[test]
fn annotations_of_the_other_runtimes() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    for (key, value) in [
        ("run.oci.handler", "wasm"),
        ("module.wasm.image/variant", "compat"),
        ("module.wasm.image/variant", "compat-smart"),
    ] {
        bundle.config["annotations"] = json!({key: value});
        bundle.prints("hello");
    }
    for (key, value) in [("run.oci.handler", "krun"), ("module.wasm.image/variant", "other")] {
        bundle.config["annotations"] = json!({key: value});
        bundle.refused(key);
    }
}

#[test]
fn modules_by_name_and_in_the_working_directory() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.process("app.wasm", &[]);
    bundle.prints("hello");
    std::fs::rename(bundle.rootfs("app.wasm"), bundle.rootfs("bin/app.wasm")).unwrap();
    bundle.prints("hello");
    bundle.process("./bin/app.wasm", &[]);
    bundle.prints("hello");
}

#[test]
fn ordinary_programs_run_natively_when_hull_may_look() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.busybox();
    bundle.process("sh", &["-c", "echo native"]);
    bundle.config["annotations"] = json!({"module.wasm.image/variant": "compat-smart"});
    bundle.prints("native\n");
    // Such a container does not even need hull-wasm; a module does.
    bundle.administrator["program"] = json!("/nonexistent/hull-wasm");
    bundle.prints("native\n");
    bundle.process("/app.wasm", &[]);
    bundle.refused("/nonexistent/hull-wasm cannot be executed");
}

#[test]
fn what_is_said_to_be_a_module_must_be_one() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.busybox();
    bundle.process("/bin/busybox", &["true"]);
    bundle.refused("\"/bin/busybox\": exec format error");
    bundle.process("/none.wasm", &[]);
    bundle.refused("\"/none.wasm\": no such file or directory");
    bundle.process("none.wasm", &[]);
    bundle.refused("\"none.wasm\": executable file not found in $PATH");
    bundle.process("/etc", &[]);
    bundle.refused("\"/etc\": permission denied");
}

#[test]
fn without_an_annotation_a_module_is_no_program() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    std::fs::set_permissions(bundle.rootfs("app.wasm"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.config["annotations"] = json!({});
    bundle.refused("exec format error");
}

#[test]
fn without_hull_wasm_the_container_is_refused() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.administrator["program"] = json!("/nonexistent/hull-wasm");
    bundle.refused("WebAssembly: /nonexistent/hull-wasm cannot be executed");
}

#[test]
fn rules_of_the_administrator() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.busybox();
    bundle.config["annotations"] = json!({});
    bundle.administrator["rules"] = json!([{"suffix": ".wasm"}]);
    bundle.prints("hello");
    std::fs::copy(bundle.rootfs("app.wasm"), bundle.rootfs("app")).unwrap();
    bundle.process("/app", &[]);
    bundle.refused("permission denied");
    bundle.administrator["rules"] = json!([{"env": "WASM=1"}]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "WASM=1"]);
    bundle.prints("hello");
    // A rule looks at the file, as compat-smart does.
    bundle.process("sh", &["-c", "echo native"]);
    bundle.prints("native\n");
}

#[test]
fn a_signal_ends_it_although_it_is_the_first_process() {
    if !ready() {
        return;
    }
    for (signal, status) in [("TERM", 143), ("INT", 130), ("KILL", 137)] {
        let bundle = Bundle::new(&guests::tool(Kind::Module), &["spin"]);
        let mut child = bundle.run_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let killed = finish(bundle.hull().args(["kill", &bundle.id, signal]));
        assert_eq!(killed.code, 0, "{killed:?}");
        assert_eq!(child.wait().unwrap().code(), Some(status), "{signal}");
    }
}

#[test]
fn exec_runs_modules_and_native_tools() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(&guests::tool(Kind::Module), &["spin"]);
    bundle.busybox();
    let mut child = bundle.run_command();
    // Its own standard error may be a file, which it may write.
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let exec = |args: &[&str]| finish(bundle.hull().args(["exec", &bundle.id]).args(args));
    let module = exec(&["/app.wasm", "args"]);
    assert_eq!((module.code, module.stdout.as_str()), (0, "[/app.wasm][args]"), "{module:?}");
    assert_eq!(exec(&["/app.wasm", "exit", "7"]).code, 7);
    let native = exec(&["sh", "-c", "echo native"]);
    assert_eq!((native.code, native.stdout.as_str()), (0, "native\n"), "{native:?}");

    // CVE-2019-5736: the container sees the files of hull-wasm and of its module's compiled form, and can write to none.
    let attack = "for f in /proc/1/exe /proc/1/fd/*; do
        [ -f $f ] || continue
        echo tried; busybox chmod 777 $f; (echo x >> $f) && echo written
      done 2>&1";
    let program = std::fs::read(hull_wasm()).unwrap();
    let compiled = bundle.cached();
    let before = std::fs::read(&compiled[0]).unwrap();
    let attacked = exec(&["sh", "-c", attack]);
    // The program, and the compiled module as long as it is mapped by its descriptor.
    let count = |text: &str| attacked.stdout.matches(text).count();
    assert!(count("tried") >= 1 && count("chmod: /proc/1/") == count("tried"), "{attacked:?}");
    assert!(count("Read-only file system") >= count("tried") && count("written") == 0, "{attacked:?}");
    assert!(std::fs::read(&compiled[0]).unwrap() == before, "the compiled module was changed");
    assert!(std::fs::read(hull_wasm()).unwrap() == program, "hull-wasm was changed");
    assert_eq!(finish(bundle.hull().args(["kill", &bundle.id, "KILL"])).code, 0);
    child.wait().unwrap();
}

#[test]
fn features_tell_the_truth() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    for (program, enabled) in [(hull_wasm(), "true"), ("/nonexistent/hull-wasm".into(), "false")] {
        bundle.administrator["program"] = json!(program);
        let features = finish(bundle.hull().arg("features"));
        let features: serde_json::Value = serde_json::from_str(&features.stdout).unwrap();
        assert_eq!(features["annotations"]["dev.hull.wasm.enabled"], enabled);
        let unsafe_ones = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
        for name in ["run.oci.handler", "module.wasm.image/variant"] {
            assert!(unsafe_ones.iter().any(|one| one == name), "{unsafe_ones:?}");
        }
    }
}
