//! config-linux.md "Seccomp". Calls without an applet are made by tiny programs written into the root file system.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command::run;
use crate::console::Receiver;
use crate::context::Context;
use crate::probe;
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("errno", "action SCMP_ACT_ERRNO: the call fails with EPERM", errno),
    test("errno-ret", "errnoRet: the errno return code to use", errno_ret),
    test("default-errno-ret", "defaultErrnoRet: the errno return code of the default action", default_errno_ret),
    test("default-action", "defaultAction is for all calls without a rule", default_action),
    test("kill", "SCMP_ACT_KILL_PROCESS ends the process by SIGSYS", kill),
    case("kill-thread", "SCMP_ACT_KILL_THREAD ends the thread alone", kill_thread, "SCMP_ACT_KILL_THREAD 42"),
    case("kill-alias", "SCMP_ACT_KILL is SCMP_ACT_KILL_THREAD", kill_thread, "SCMP_ACT_KILL 42"),
    case("kill-process", "SCMP_ACT_KILL_PROCESS ends all threads", kill_thread, "SCMP_ACT_KILL_PROCESS 159"),
    test("trap", "SCMP_ACT_TRAP sends SIGSYS", trap),
    test(
        "trap-handled",
        "SCMP_ACT_TRAP sends SIGSYS, which a program may handle, and the call is not made",
        trap_handled,
    ),
    test("trace", "SCMP_ACT_TRACE without a tracer: the call fails with ENOSYS", trace),
    test("log", "SCMP_ACT_LOG lets the call pass", log),
    test("arguments", "args: index, value and op of conditions", arguments),
    test("argument-64-bit", "args: values above 32 bits are compared whole", wide_argument),
    test("masked-equal", "SCMP_CMP_MASKED_EQ: value is the mask, valueTwo the result", masked_equal),
    test("several-conditions", "args: all conditions of a rule must hold", several_conditions),
    test("several-rules", "several rules for one call are alternatives", several_rules),
    test("architectures", "architectures: rules are for each of them, also 32-bit ones", architectures),
    test("architecture-absent", "a call of an architecture that is not listed ends the thread", architecture_absent),
    test("unknown-name", "a system call name that the machine does not have is skipped", unknown_name),
    test(
        "newer-call",
        "a call newer than the profile fails with ENOSYS (as in runc), so that programs fall back",
        newer_call,
    ),
    test(
        "errno-ret-unsupported",
        "when the action does not support an errno, the runtime MUST print and error and fail",
        errno_unsupported,
    ),
    test("unknown-action", "an unknown action is an error", unknown_action),
    test("flags", "flags: of seccomp(2)", flags),
    test("flags-in-force", "flags: those that the kernel acts upon reach it", flags_in_force),
    test("no-new-privileges-false", "a filter works without noNewPrivileges too", without_nnp),
    test("exec", "a process that joins the container is filtered too", exec_filtered),
    test("moby", "moby's default profile: what it is known to deny is denied", moby),
    test("notify", "listenerPath: the runtime sends the seccomp descriptor and the container process state", notify),
    test(
        "notify-once",
        "listenerPath: exactly one state per connection, which MUST be closed after it; and one for each further process",
        notify_once,
    ),
    test("notify-needs-path", "SCMP_ACT_NOTIFY without listenerPath is an error", notify_without_path),
];

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// A default profile as engines have it.
pub(crate) const MOBY: &str = include_str!("../../../hull/src/seccomp/tests/moby-default.json");

fn filter(bundle: &mut Bundle<'_>, default: &str, rules: Value) {
    bundle.set("/linux/seccomp", json!({"defaultAction": default, "syscalls": rules}));
}

fn x86_64() -> Result<()> {
    if cfg!(target_arch = "x86_64") { Ok(()) } else { Err(skip("the probe programs are for x86-64")) }
}

/// Runs a program that makes one call; its exit status is the error number.
fn probe_code(bundle: &mut Bundle<'_>, program: &[u8]) -> Result<i32> {
    x86_64()?;
    bundle.program("probe", program)?;
    bundle.script("/probe; echo $?");
    let output = bundle.run()?;
    output.text().lines().last().context("no output")?.parse().with_context(|| format!("{output:?}"))
}

/// `umask(0777)`, which always succeeds, unless it is filtered.
fn umask_call(argument: u64) -> Vec<u8> {
    probe::call(95, &[argument, 0x1_0000_0005, 7])
}

fn errno(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    let said = bundle.run_script("mkdir /tmp/x 2>&1; mkdir /x 2>/dev/null; ls / | grep -c '^x$'; true")?;
    ensure!(said.contains("Operation not permitted") && said.ends_with('0'), "{said}");
    Ok(())
}

fn errno_ret(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 77, "{code}");
    Ok(())
}

/// Allows everything that busybox and a runtime need; `names` are left out.
fn allow_all_but(names: &[&str]) -> Result<Value> {
    let mut profile: Value = serde_json::from_str(MOBY)?;
    if let Some(list) = profile["syscalls"][0]["names"].as_array_mut() {
        list.retain(|name| !names.iter().any(|one| name == one));
    }
    Ok(profile)
}

fn default_errno_ret(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let mut profile = allow_all_but(&["umask"])?;
    profile["defaultErrnoRet"] = json!(55);
    bundle.set("/linux/seccomp", profile);
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 55, "{code}");
    Ok(())
}

fn default_action(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/seccomp", allow_all_but(&["umask"])?);
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == EPERM, "{code}");
    Ok(())
}

fn kill(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_KILL_PROCESS"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 128 + 31, "{code}");
    Ok(())
}

fn trap(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_TRAP"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 128 + 31, "{code}");
    Ok(())
}

/// What becomes of a program whose second thread makes a call with this action: the action, and the status.
fn kill_thread(context: &Context, row: &str) -> Result<()> {
    let (action, wanted) = row.split_once(' ').context("row")?;
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": action}]));
    let code = probe_code(&mut bundle, &probe::call_in_thread(95))?;
    ensure!(code.to_string() == wanted, "{code} instead of {wanted}");
    bundle.unset("/linux/seccomp");
    let code = probe_code(&mut bundle, &probe::call_in_thread(95))?;
    ensure!(code == 7, "without a filter the thread lives on, but the status is {code}");
    Ok(())
}

fn trap_handled(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let args = json!([{"index": 0, "value": 0o27, "op": "SCMP_CMP_EQ"}]);
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_TRAP", "args": args}]));
    let said = bundle.run_script("umask 022; trap 'echo handled' SYS; umask 027; umask")?;
    ensure!(said == "handled\n0022", "{said:?}");
    Ok(())
}

fn trace(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_TRACE"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == ENOSYS, "{code}");
    Ok(())
}

fn log(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_LOG"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 0, "{code}");
    Ok(())
}

fn with_args(context: &Context, args: Value, program: &[u8]) -> Result<i32> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": args}]));
    probe_code(&mut bundle, program)
}

fn arguments(context: &Context) -> Result<()> {
    let operators: [(&str, [bool; 3]); 6] = [
        ("EQ", [false, true, false]),
        ("NE", [true, false, true]),
        ("LT", [true, false, false]),
        ("LE", [true, true, false]),
        ("GT", [false, false, true]),
        ("GE", [false, true, true]),
    ];
    for (operator, wanted) in operators {
        let args = json!([{"index": 0, "value": 0o22, "op": format!("SCMP_CMP_{operator}")}]);
        for (argument, denied) in [0o21, 0o22, 0o23].into_iter().zip(wanted) {
            let code = with_args(context, args.clone(), &umask_call(argument))?;
            ensure!((code == EPERM) == denied, "{argument} {operator} {}: {code}", 0o22);
        }
    }
    Ok(())
}

fn wide_argument(context: &Context) -> Result<()> {
    for (value, want) in [(0x1_0000_0005_u64, EPERM), (5, 0), (0x2_0000_0005, 0)] {
        let args = json!([{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]);
        let code = with_args(context, args, &umask_call(0))?;
        ensure!(code == want, "{value:#x}: {code}");
    }
    Ok(())
}

fn masked_equal(context: &Context) -> Result<()> {
    for (argument, want) in [(0o24, EPERM), (0o04, 0), (0o21, EPERM)] {
        let args = json!([{"index": 0, "value": 0o20, "valueTwo": 0o20, "op": "SCMP_CMP_MASKED_EQ"}]);
        let code = with_args(context, args, &umask_call(argument))?;
        ensure!(code == want, "{argument:#o}: {code}");
    }
    Ok(())
}

fn several_conditions(context: &Context) -> Result<()> {
    for (second, want) in [(7, EPERM), (8, 0)] {
        let args =
            json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": second, "op": "SCMP_CMP_EQ"}]);
        let code = with_args(context, args, &umask_call(1))?;
        ensure!(code == want, "{second}: {code}");
    }
    Ok(())
}

fn several_rules(context: &Context) -> Result<()> {
    for (argument, want) in [(1, EPERM), (2, EPERM), (3, 0)] {
        let mut bundle = context.bundle()?;
        let rule = |value: u32| json!({"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]});
        filter(&mut bundle, "SCMP_ACT_ALLOW", json!([rule(1), rule(2)]));
        let code = probe_code(&mut bundle, &umask_call(argument))?;
        ensure!(code == want, "{argument}: {code}");
    }
    Ok(())
}

/// `umask` of 32-bit x86.
fn umask_32() -> Vec<u8> {
    probe::call_32(60, [0o22, 0, 0])
}

fn has_32_bit(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    match probe_code(&mut bundle, &umask_32())? {
        0 => Ok(()),
        code => Err(skip(format!("this kernel runs no 32-bit programs ({code})"))),
    }
}

fn architectures(context: &Context) -> Result<()> {
    has_32_bit(context)?;
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9}]));
    bundle.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
    let code = probe_code(&mut bundle, &umask_32())?;
    ensure!(code == 9, "32-bit: {code}");
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == 9, "64-bit: {code}");
    Ok(())
}

fn architecture_absent(context: &Context) -> Result<()> {
    has_32_bit(context)?;
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]));
    bundle.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64"]));
    let code = probe_code(&mut bundle, &umask_32())?;
    ensure!(code == 128 + 31, "{code}");
    Ok(())
}

fn unknown_name(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["no_such_call", "umask"], "action": "SCMP_ACT_ERRNO"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == EPERM, "{code}");
    Ok(())
}

fn newer_call(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/seccomp", serde_json::from_str(MOBY)?);
    let code = probe_code(&mut bundle, &probe::call(999, &[]))?;
    ensure!(code == ENOSYS, "{code}");
    Ok(())
}

fn errno_unsupported(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ALLOW", "errnoRet": 5}]));
    bundle.set("/linux/seccomp/defaultErrnoRet", json!(5));
    bundle.refused().map(drop)
}

fn unknown_action(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_SHRUG"}]));
    bundle.refused().map(drop)
}

fn flags(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ERRNO"}]));
    bundle.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == EPERM, "{code}");
    bundle.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_SHRUG"]));
    bundle.refused().map(drop)
}

fn flags_in_force(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]));
    let flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    bundle.set("/linux/seccomp/flags", json!(flags)).save()?;
    let trace = bundle.path.join("trace");
    let mut command = context.traced(&["-e", "trace=seccomp,prctl"], &trace)?;
    run(command.args(["run", "--bundle", &bundle.path.to_string_lossy(), &bundle.id]), None)?.ok()?;
    let calls = std::fs::read_to_string(trace)?;
    let installs = |line: &&str| line.contains("seccomp(SECCOMP_SET_MODE_FILTER") && line.ends_with("= 0");
    let install = calls.lines().find(installs).with_context(|| format!("no filter: {calls}"))?;
    ensure!(flags.iter().all(|flag| install.contains(flag)), "{install}");
    Ok(())
}

fn without_nnp(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/noNewPrivileges", json!(false));
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_ERRNO"}]));
    let code = probe_code(&mut bundle, &umask_call(0))?;
    ensure!(code == EPERM, "{code}");
    let said = bundle.run_script("awk '/NoNewPrivs|^Seccomp:/ {print $2}' /proc/self/status")?;
    ensure!(said == "0\n2", "{said}");
    Ok(())
}

fn exec_filtered(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    bundle.started()?;
    let output = bundle.exec(&[], "mkdir /tmp/x")?;
    ensure!(!output.success() && output.stderr.contains("not permitted"), "{output:?}");
    Ok(())
}

pub(super) fn moby(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/seccomp", serde_json::from_str(MOBY)?);
    // Name, number, arguments, error number. 38 is AF_ALG: CVE-2026-31431; the namespace and mount calls: CVE-2022-0185.
    let calls: [(&str, u64, &[u64], i32); 9] = [
        ("unshare(CLONE_NEWUSER)", 272, &[0x1000_0000], EPERM),
        ("socket(AF_ALG)", 41, &[38, 5, 0], EPERM),
        ("socket(AF_VSOCK)", 41, &[40, 1, 0], EPERM),
        ("socket(AF_INET)", 41, &[2, 1, 0], 0),
        ("fsopen", 430, &[0, 0], EPERM),
        ("keyctl", 250, &[0, 0], EPERM),
        ("clone3", 435, &[0, 0], ENOSYS),
        ("bpf", 321, &[0, 0, 0], EPERM),
        ("io_uring_setup", 425, &[1, 0], EPERM),
    ];
    for (name, number, args, want) in calls {
        let code = probe_code(&mut bundle, &probe::call(number, args))?;
        ensure!(code == want, "{name}: {code} instead of {want}");
    }
    Ok(())
}

fn notify(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_NOTIFY"}]));
    bundle.set("/linux/seccomp/listenerPath", json!(receiver.path()));
    bundle.set("/linux/seccomp/listenerMetadata", json!("some metadata"));
    bundle.created()?;
    bundle.start()?.ok()?;
    let (message, descriptors) = receiver.receive()?;
    let state: Value = serde_json::from_str(&message).with_context(|| format!("the message is {message:?}"))?;
    ensure!(
        state["fds"] == json!(["seccompFd"]) && descriptors.len() == 1,
        "{} descriptors, {state}",
        descriptors.len()
    );
    ensure!(state["metadata"] == "some metadata", "metadata: {state}");
    ensure!(state["pid"].as_u64().is_some_and(|pid| pid > 0), "pid: {state}");
    ensure!(state["state"]["id"] == bundle.id.as_str(), "state: {state}");
    ensure!(state["ociVersion"].is_string(), "ociVersion: {state}");
    let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&descriptors[0])))?;
    ensure!(link == Path::new("anon_inode:seccomp notify"), "{}", link.display());
    Ok(())
}

fn notify_once(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_NOTIFY"}]));
    bundle.set("/linux/seccomp/listenerPath", json!(receiver.path()));
    bundle.started()?;
    let first: Value = serde_json::from_str(&receiver.receive_all()?.0)?;
    ensure!(first["pid"] == bundle.pid()? && first["state"]["pid"] == bundle.pid()?, "{first}");
    bundle.runtime(&["exec", "--detach", &bundle.id, "sleep", "60"])?.ok()?;
    let second: Value = serde_json::from_str(&receiver.receive_all()?.0)?;
    ensure!(second["state"]["id"] == bundle.id.as_str() && second["pid"] != first["pid"], "{second}");
    Ok(())
}

fn notify_without_path(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    filter(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": ["umask"], "action": "SCMP_ACT_NOTIFY"}]));
    bundle.refused().map(drop)
}
