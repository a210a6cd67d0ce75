//! What CRIU is told, by a program in its place: it writes down the request, and answers as the test says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bundle::{Bundle, bundle, text};

const CRIU: &str = "/usr/sbin/criu";

/// Success, as the answer to a checkpoint.
const SAVED: &str = r"say '\010\001\020\001'";

/// That the namespaces are there; then failure, as the answer to a restore.
const NOT_RESTORED: &str = r"say '\010\006\020\001\052\024\012\020setup-namespaces\020\001'
hear reply
say '\010\002\020\000'";

/// A bundle, where CRIU can be replaced.
fn replaceable(name: &str, script: &str) -> Option<Bundle> {
    if !Path::new(CRIU).exists() || !Path::new("/bin/bash").exists() {
        println!("skipped: there is no {CRIU}, or no bash");
        return None;
    }
    bundle(name, script)
}

/// Runs hull with a program in CRIU's place that answers like this.
fn hull(b: &Bundle, answer: &str, args: &[&str]) -> Output {
    let criu = b.path().join("criu");
    // A message is written at once, which the shell itself does not do after a new line.
    let script = format!(
        "#!/bin/bash
        cd {}; socket=$2
        hear() {{ dd bs=65536 count=1 <&$socket 2>/dev/null >$1; }}
        say() {{ printf \"$1\" >answer; cat answer >&$socket; }}
        hear request; {answer}",
        b.path().display()
    );
    std::fs::write(&criu, script).unwrap();
    std::fs::set_permissions(&criu, std::fs::Permissions::from_mode(0o755)).unwrap();
    hull_with(b, &criu, args)
}

/// Runs hull with this file in CRIU's place, in a mount namespace of its own.
fn hull_with(b: &Bundle, criu: &Path, args: &[&str]) -> Output {
    let replace = format!("mount --bind \"$0\" {CRIU} && exec \"$@\"");
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &replace])
        .arg(criu)
        .arg(env!("CARGO_BIN_EXE_hull"))
        .arg("--root")
        .arg(b.records())
        .args(args)
        .current_dir(b.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The fields of a message of Protocol Buffers, by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = varint(&mut bytes);
        let value = if key & 7 == 0 {
            Value::Number(number)
        } else {
            assert_eq!(key & 7, 2, "a kind of field that these messages do not have");
            let (value, rest) = bytes.split_at(usize::try_from(number).unwrap());
            bytes = rest;
            Value::Bytes(value.to_vec())
        };
        out.push((key >> 3, value));
    }
    out
}

/// The value of an option in the last request, as CRIU's `rpc.proto` numbers it.
fn told(b: &Bundle, option: u64) -> Option<Value> {
    let request = std::fs::read(b.path().join("request")).unwrap();
    let options = fields(&request).into_iter().find_map(|(number, value)| match value {
        Value::Bytes(options) if number == 2 => Some(options),
        _ => None,
    });
    fields(&options.unwrap()).into_iter().find(|(number, _)| *number == option).map(|(_, value)| value)
}

#[test]
fn each_flag_of_checkpoint_is_told() {
    let Some(b) = replaceable("told", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let save = |flags: &[&str]| {
        let output = hull(&b, SAVED, &[&["checkpoint", "--leave-running"], flags, &[&b.id]].concat());
        assert!(output.status.success(), "{flags:?}: {}", text(&output.stderr));
    };
    let number = |n| Some(Value::Number(n));
    for (flags, option, value) in [
        (&["--ext-unix-sk"][..], 4, number(1)),
        (&["--tcp-established"], 5, number(1)),
        (&["--shell-job"], 7, number(1)),
        (&["--file-locks"], 8, number(1)),
        (&["--page-server", "127.0.0.1:27"], 11, Some(Value::Bytes(b"\x0a\x09127.0.0.1\x10\x1b".to_vec()))),
        (&["--auto-dedup"], 16, number(1)),
        (&["--link-remap"], 18, number(1)),
        (&["--empty-ns", "network"], 38, number(0x4000_0000)),
        (&["--tcp-skip-in-flight"], 46, number(1)),
        (&["--lazy-pages"], 48, number(1)),
        (&["--status-fd", "1"], 49, number(1)),
        (&["--tcp-close"], 52, number(1)),
    ] {
        save(&[]);
        assert!(matches!(told(&b, option), None | Some(Value::Number(0))), "{flags:?} without it");
        save(flags);
        assert_eq!(told(&b, option), value, "{flags:?}");
    }
    for (mode, value) in [("soft", 3), ("full", 4), ("strict", 5), ("ignore", 0)] {
        save(&["--manage-cgroups-mode", mode]);
        assert_eq!(told(&b, 34), number(value), "{mode}");
    }
    assert_eq!(told(&b, 3), number(1));
    assert_eq!(crate::program::status(&b), "running");
}

#[test]
fn a_missing_criu_is_named() {
    let Some(b) = replaceable("missing", "exec sleep 1000") else { return };
    b.write();
    assert!(b.hull_detached(&["run", "--detach", &b.id]));
    let output = hull_with(&b, Path::new("/dev/null"), &["checkpoint", &b.id]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("criu is not installed"), "{said}");
    assert_eq!(crate::program::status(&b), "running");
}

/// And hooks that undo what creation's did run, as when a creation fails.
#[test]
fn a_restore_that_fails_is_undone() {
    let Some(mut b) = replaceable("restored", "exec sleep 1000") else { return };
    let hook =
        |word: &str| serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> hooked")]});
    let hooks = serde_json::json!({"createRuntime": [hook("begun")], "poststop": [hook("undone")]});
    b.spec.hooks = serde_json::from_value(hooks).unwrap();
    b.write();
    let image = b.path().join("image");
    std::fs::create_dir(&image).unwrap();
    std::fs::write(image.join("inventory.img"), "").unwrap();
    let labels = ["--lsm-profile", "apparmor:profile", "--lsm-mount-context", "context"];
    let command = [&["restore", "--detach", "--image-path", "image"], &labels[..], &[&b.id]].concat();
    let output = hull(&b, NOT_RESTORED, &command);
    assert!(!output.status.success());
    assert_eq!(told(&b, 53), Some(Value::Bytes(b"apparmor:profile".to_vec())), "{}", text(&output.stderr));
    assert_eq!(told(&b, 63), Some(Value::Bytes(b"context".to_vec())));
    let hooked = std::fs::read_to_string(b.path().join("hooked")).unwrap_or_default();
    assert_eq!(hooked, "begun\nundone\n", "{}", text(&output.stderr));
    assert!(!b.records().join(&b.id).exists());
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!hierarchy.path().join("berth-test").join(&b.id).exists(), "{}", hierarchy.path().display());
    }
}
