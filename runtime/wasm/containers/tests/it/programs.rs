//! What a program gets from its container, and what the container gets from it.

use serde_json::json;

use hull_wasm_containers::guests::{self, KINDS, Kind};
use hull_wasm_containers::{Bundle, ready};

#[test]
fn arguments_and_environment() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let mut bundle = Bundle::new(&guests::tool(kind), &["args", "two words", ""]);
        bundle.prints("[/app.wasm][args][two words][]");
        bundle.config["process"]["env"] = json!(["PATH=/bin", "COLOUR=green"]);
        bundle.process("/app.wasm", &["env", "COLOUR"]);
        bundle.prints("green");
        bundle.process("/app.wasm", &["env", "HULL_ROOT"]);
        bundle.prints("(unset)");
    }
}

#[test]
fn standard_streams() {
    if !ready() {
        return;
    }
    // More than a pipe holds, in both directions.
    let text: String = (0..40_000).map(|number| format!("line {number}\n")).collect();
    for kind in KINDS {
        let mut bundle = Bundle::new(&guests::tool(kind), &["cat"]);
        let output = bundle.run_with(&text);
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert!(output.stdout == text, "{kind:?}: {} of {} bytes came back", output.stdout.len(), text.len());
        bundle.process("/app.wasm", &["warn", "careful"]);
        let output = bundle.run();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "careful"));
    }
}

#[test]
fn exit_statuses() {
    if !ready() {
        return;
    }
    for status in ["0", "1", "3", "125", "126", "200", "255"] {
        let bundle = Bundle::new(&guests::tool(Kind::Module), &["exit", status]);
        assert_eq!(bundle.run().code.to_string(), status);
    }
    // A component of WASI 0.2 can only succeed or fail.
    for (status, code) in [("0", 0), ("3", 1)] {
        assert_eq!(Bundle::new(&guests::tool(Kind::Component), &["exit", status]).run().code, code);
    }
}

#[test]
fn a_trap_is_an_abort_with_a_message() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let output = Bundle::new(&guests::tool(kind), &["trap"]).run();
        assert_eq!(output.code, 134, "{output:?}");
        assert!(output.stderr.contains("/app.wasm") && output.stderr.contains("unreachable"), "{}", output.stderr);
    }
}

#[test]
fn directories_and_mounts() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let mut bundle = Bundle::new(&guests::tool(kind), &["read", "/etc/motd"]);
        std::fs::write(bundle.rootfs("etc/motd"), "hello").unwrap();
        bundle.prints("hello");

        let (data, fixed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(fixed.path().join("file"), "fixed").unwrap();
        bundle.bind(data.path(), "/data", "rw");
        bundle.bind(fixed.path(), "/fixed", "ro");
        // A mounted file is no directory to open.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one file").unwrap();
        bundle.bind(file.path(), "/etc/hosts", "ro");
        bundle.process("/app.wasm", &["write", "/data/out", "written inside"]);
        bundle.prints("");
        assert_eq!(std::fs::read_to_string(data.path().join("out")).unwrap(), "written inside");
        for (path, content) in [("/fixed/file", "fixed"), ("/etc/hosts", "one file")] {
            bundle.process("/app.wasm", &["read", path]);
            bundle.prints(content);
        }
        bundle.process("/app.wasm", &["write", "/fixed/file", "changed"]);
        fails(&bundle, "/fixed/file: Read-only file system\n");
        assert_eq!(std::fs::read_to_string(fixed.path().join("file")).unwrap(), "fixed");
    }
}

#[test]
fn errors_of_the_file_system_are_the_kernels() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let data = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new(&guests::tool(kind), &["move", "/etc/motd", "/data/motd"]);
        std::fs::write(bundle.rootfs("etc/motd"), "hello").unwrap();
        bundle.bind(data.path(), "/data", "rw");
        // What tells `mv` to copy.
        fails(&bundle, "/etc/motd: Cross-device link\n");
        bundle.process("/app.wasm", &["move", "/etc/none", "/etc/motd"]);
        fails(&bundle, "/etc/none: No such file or directory\n");

        bundle.config["root"]["readonly"] = json!(true);
        std::fs::create_dir(bundle.rootfs("etc/dir")).unwrap();
        for command in [
            &["write", "/etc/new", "text"][..],
            &["write", "/etc/motd", "text"],
            &["move", "/etc/motd", "/etc/moved"],
            &["link", "/etc/motd", "/etc/linked"],
            &["symlink", "/etc/linked"],
            &["mkdir", "/etc/new"],
            &["rmdir", "/etc/dir"],
            &["unlink", "/etc/motd"],
            &["touch", "/etc/motd"],
            &["touch-open", "/etc/motd"],
        ] {
            bundle.process("/app.wasm", command);
            fails(&bundle, &format!("{}: Read-only file system\n", command[1]));
        }
        // The mount is not the root's.
        bundle.process("/app.wasm", &["write", "/data/new", "text"]);
        bundle.prints("");
        assert_eq!(std::fs::read_to_string(bundle.rootfs("etc/motd")).unwrap(), "hello");
    }
}

/// Expects the tool to give up with this text.
fn fails(bundle: &Bundle, text: &str) {
    let output = bundle.run();
    assert_eq!((output.code, output.stdout.as_str()), (1, text), "{output:?}");
}

#[test]
fn the_user_of_the_container() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::tool(Kind::Module), &["write", "/etc/file", "x"]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.config["process"]["capabilities"] = json!({});
    let output = bundle.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("ermission"), "{output:?}");

    std::fs::set_permissions(bundle.rootfs("app.wasm"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    bundle.refused("\"/app.wasm\": permission denied");
}

#[test]
fn what_cannot_be_started_says_why() {
    if !ready() {
        return;
    }
    let no_start = wat::parse_str("(module (memory (export \"memory\") 1))").unwrap();
    let output = Bundle::new(&no_start, &[]).run();
    assert_eq!(output.code, 126, "{output:?}");
    assert!(output.stderr.contains("_start"), "{output:?}");

    let foreign = wat::parse_str("(module (import \"env\" \"magic\" (func)) (func (export \"_start\")))").unwrap();
    let output = Bundle::new(&foreign, &[]).run();
    assert_eq!(output.code, 126, "{output:?}");
    assert!(output.stderr.contains("env::magic"), "{output:?}");

    // The right first bytes, then none that belong to a module.
    let output = Bundle::new(b"\0asm\x01\0\0\0\xff\xff\xff\xff", &[]).run();
    assert_eq!(output.code, 126, "{output:?}");
    assert!(output.stderr.contains("hull-wasm: /app.wasm: "), "{output:?}");
}
