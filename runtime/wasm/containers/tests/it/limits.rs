//! The limits of the container hold for the program.

use serde_json::json;

use hull_wasm_containers::guests::{self, KINDS, Kind};
use hull_wasm_containers::{Bundle, ready};

#[test]
fn the_memory_limit_of_the_cgroup() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let mut bundle = Bundle::new(&guests::tool(kind), &["grow", "40"]);
        bundle.config["linux"]["resources"]["memory"] = json!({"limit": 96 << 20, "swap": 96 << 20});
        bundle.prints("grown");
        bundle.process("/app.wasm", &["grow", "200"]);
        let output = bundle.run();
        assert_eq!((output.code, output.stdout.as_str()), (137, ""), "{output:?}");
    }
}

#[test]
fn a_limit_of_addresses_leaves_the_program_running() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::tool(Kind::Module), &["grow", "20"]);
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_AS", "hard": 512 << 20, "soft": 512 << 20}]);
    bundle.prints("grown");
    bundle.process("/app.wasm", &["grow", "1000"]);
    let output = bundle.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("malloc"), "{output:?}");
}

#[test]
fn one_process_and_a_filter_are_enough() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::tool(Kind::Module), &["args"]);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 4});
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["fork", "vfork", "ptrace", "mount", "unshare", "setns"], "action": "SCMP_ACT_KILL_PROCESS"}]
    });
    bundle.prints("[/app.wasm][args]");
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["write", "writev"]);
    assert_eq!(bundle.run().code, 128 + 31);
}

#[test]
fn landlock_rules() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::tool(Kind::Module), &["read", "/etc/motd"]);
    std::fs::write(bundle.rootfs("etc/motd"), "hello").unwrap();
    std::fs::write(bundle.rootfs("data/secret"), "secret").unwrap();
    let features = hull_wasm_containers::finish(bundle.hull().arg("features")).stdout;
    let features: serde_json::Value = serde_json::from_str(&features).unwrap();
    if features["annotations"]["dev.hull.landlock.abi"] == "0" {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    bundle.config["annotations"]["dev.hull.landlock"] = json!(r#"{"readOnly": ["/etc", "/app.wasm"]}"#);
    bundle.prints("hello");
    bundle.process("/app.wasm", &["read", "/data/secret"]);
    let output = bundle.run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!output.stdout.contains("secret\n") && output.stdout.contains("ermission"), "{output:?}");
}
