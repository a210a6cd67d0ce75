//! config.md "Process".

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::command::run;
use crate::context::{Cgroups, Context};
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("args", "args: similar semantics to execvp's argv", args),
    test("args-empty", "args: this property MUST contain one or more strings", args_empty),
    test("args-by-path-variable", "args: the program is looked up in the PATH of process.env", by_path),
    test("args-not-found", "a program that does not exist is an error that names it", not_found),
    test("args-not-executable", "a file without execute permission is an error", not_executable),
    test("env", "env: exactly as configured", env),
    test("env-not-inherited", "CVE-2026-57231: the runtime's own environment stays outside", env_not_inherited),
    test("cwd", "cwd is the working directory", cwd),
    test("cwd-relative", "cwd: this value MUST be an absolute path", cwd_relative),
    test("cwd-made", "a working directory that is missing is made, by whatever path it is named", cwd_made),
    test("cwd-is-a-file", "a working directory that is none is an error", cwd_file),
    test("exit-status", "run exits with the status of the process", exit_status),
    test("killed-status", "run exits with 128 more than the signal that ended the process", killed_status),
    test("stdin", "standard input reaches the process", stdin),
    test("stderr", "standard error is apart from standard output", stderr),
    test(
        "no-new-privileges",
        "noNewPrivileges: setting it to true prevents the process from gaining additional privileges",
        no_new_privileges,
    ),
    test("oom-score-adj", "oomScoreAdj: runtime MUST set oom_score_adj to the given value", oom_score_adj),
    test("oom-score-adj-unset", "oomScoreAdj: if not set, the runtime MUST NOT change the value", oom_score_adj_unset),
    case(
        "io-priority-be",
        "ioPriority: class and priority of the process",
        io_priority,
        "IOPRIO_CLASS_BE 4 best-effort: prio 4",
    ),
    case("io-priority-idle", "ioPriority: IOPRIO_CLASS_IDLE", io_priority, "IOPRIO_CLASS_IDLE 0 idle"),
    case("io-priority-rt", "ioPriority: IOPRIO_CLASS_RT", io_priority, "IOPRIO_CLASS_RT 3 realtime: prio 3"),
    test("io-priority-range", "ioPriority: the priority is from 0 to 7", io_priority_range),
    test("io-priority-unknown", "ioPriority: an unknown class is an error", io_priority_unknown),
    case("scheduler-batch", "scheduler: SCHED_BATCH with nice", scheduler, "SCHED_BATCH 3"),
    case("scheduler-idle", "scheduler: SCHED_IDLE", scheduler, "SCHED_IDLE 5"),
    case("scheduler-other", "scheduler: SCHED_OTHER with nice", scheduler, "SCHED_OTHER 0"),
    case("scheduler-fifo", "scheduler: SCHED_FIFO with priority", scheduler_realtime, "SCHED_FIFO 1"),
    case("scheduler-rr", "scheduler: SCHED_RR with priority", scheduler_realtime, "SCHED_RR 2"),
    test(
        "scheduler-deadline",
        "scheduler: SCHED_DEADLINE with runtime, deadline and period; SCHED_FLAG_RESET_ON_FORK",
        scheduler_deadline,
    ),
    test("scheduler-unknown-flag", "scheduler.flags: an unknown flag is an error", scheduler_unknown_flag),
    test("scheduler-unknown", "scheduler: an unknown policy is an error", scheduler_unknown),
    test("session-leader-and-pid-1", "the process is number 1 of its pid namespace", pid_one),
    test("no-inherited-descriptors", "the process has stdin, stdout and stderr, and nothing else", descriptors),
    test("signals-unblocked", "no signal is blocked for the process", signals),
    test("affinity-reset", "the CPU affinity of the runtime's caller is not kept in a cpuset of its own", affinity),
];

fn args(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!(["printf", "<%s>", "a b", "", "ü", "$HOME"]));
    let said = bundle.output()?;
    ensure!(said == "<a b><><ü><$HOME>", "{said:?}");
    Ok(())
}

fn args_empty(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!([]));
    bundle.refused().map(drop)
}

fn by_path(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.rootfs().join("opt"))?;
    bundle.program("opt/special", b"#!/bin/sh\necho found\n")?;
    bundle.set("/process/env", json!(["PATH=/bin:/opt"])).set("/process/args", json!(["special"]));
    let said = bundle.output()?;
    ensure!(said == "found", "{said:?}");
    Ok(())
}

fn not_found(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!(["/no/such/program"]));
    let output = bundle.run()?;
    ensure!(!output.success(), "run succeeded");
    ensure!(output.stderr.contains("/no/such/program"), "the error does not name it: {:?}", output.stderr);
    Ok(())
}

fn not_executable(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.rootfs().join("plain"), "text")?;
    bundle.set("/process/args", json!(["/plain"]));
    ensure!(!bundle.run()?.success(), "run succeeded");
    Ok(())
}

fn env(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "A=1", "EMPTY=", "B=with = and space", "HOME=/somewhere"]));
    bundle.set("/process/args", json!(["env"]));
    let said = bundle.output()?;
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["A=1", "B=with = and space", "EMPTY=", "HOME=/somewhere", "PATH=/bin"], "{lines:?}");
    Ok(())
}

pub(super) fn env_not_inherited(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!(["env"])).save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    command.env("CONFORMANCE_SECRET", "leaked");
    let output = run(&mut command, None)?.ok()?;
    ensure!(!output.stdout.contains("CONFORMANCE_SECRET"), "{}", output.stdout);
    Ok(())
}

fn cwd(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/cwd", json!("/tmp"));
    let said = bundle.run_script("pwd")?;
    ensure!(said == "/tmp", "{said}");
    Ok(())
}

fn cwd_relative(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/cwd", json!("tmp"));
    bundle.refused().map(drop)
}

fn cwd_made(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    symlink("/var/empty", bundle.rootfs().join("link"))?;
    for (cwd, wanted) in
        [("/made/deep", "/made/deep"), ("/none/../other/./here", "/other/here"), ("/link/below", "/var/empty/below")]
    {
        bundle.set("/process/cwd", json!(cwd));
        let said = bundle.run_script("pwd")?;
        ensure!(said == wanted, "{cwd} is {said}");
    }
    Ok(())
}

fn cwd_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/cwd", json!("/etc/passwd"));
    ensure!(!bundle.run()?.success(), "run succeeded");
    Ok(())
}

fn exit_status(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for want in [0, 1, 7, 126, 255] {
        bundle.script(&format!("exit {want}"));
        let code = bundle.run()?.code();
        ensure!(code == want, "{code} instead of {want}");
    }
    Ok(())
}

fn killed_status(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    // Process 1 of a pid namespace ignores its own signals.
    bundle.without_namespace("pid");
    bundle.script("kill -KILL $$");
    let code = bundle.run()?.code();
    ensure!(code == 128 + 9, "{code}");
    Ok(())
}

fn stdin(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!(["tr", "a-z", "A-Z"])).save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let output = run(&mut bundle.command(&["run", "--bundle", &path, &bundle.id]), Some("some text"))?.ok()?;
    ensure!(output.text() == "SOME TEXT", "{:?}", output.text());
    Ok(())
}

fn stderr(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("echo out; echo err >&2");
    let output = bundle.run()?.ok()?;
    ensure!(output.text() == "out" && output.stderr.trim() == "err", "{output:?}");
    Ok(())
}

fn no_new_privileges(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for (value, want) in [(true, "1"), (false, "0")] {
        bundle.set("/process/noNewPrivileges", json!(value));
        let said = bundle.run_script("awk '/NoNewPrivs/ {print $2}' /proc/self/status")?;
        ensure!(said == want, "{value}: {said}");
    }
    Ok(())
}

fn oom_score_adj(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/oomScoreAdj", json!(321));
    let said = bundle.run_script("cat /proc/self/oom_score_adj")?;
    ensure!(said == "321", "{said}");
    Ok(())
}

fn oom_score_adj_unset(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("cat /proc/self/oom_score_adj")?;
    let ours = fs::read_to_string("/proc/self/oom_score_adj")?;
    ensure!(said == ours.trim(), "{said} instead of {ours}");
    Ok(())
}

fn io_priority(context: &Context, row: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let mut fields = row.splitn(3, ' ');
    let (class, priority, want) =
        (fields.next().unwrap_or(""), fields.next().unwrap_or("0"), fields.next().unwrap_or(""));
    bundle.set("/process/ioPriority", json!({"class": class, "priority": priority.parse::<u8>()?}));
    let said = bundle.run_script("ionice -p $$")?;
    ensure!(said.starts_with(want), "{said}");
    Ok(())
}

fn io_priority_range(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
    bundle.refused().map(drop)
}

fn io_priority_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BEST", "priority": 1}));
    bundle.refused().map(drop)
}

fn scheduler(context: &Context, row: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let (policy, number) = row.split_once(' ').unwrap_or((row, ""));
    bundle.set("/process/scheduler", json!({"policy": policy, "nice": 3}));
    let said = bundle.run_script("awk '{print $41, $19}' /proc/self/stat")?;
    let mut fields = said.split(' ');
    ensure!(fields.next() == Some(number), "policy {said}");
    if policy != "SCHED_IDLE" {
        ensure!(fields.next() == Some("3"), "nice {said}");
    }
    Ok(())
}

/// Sets the scheduler; what the process then has: its real-time priority and its policy, and the policy of a child.
fn scheduled(context: &Context, scheduler: &Value, realtime: bool) -> Result<String> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/scheduler", scheduler.clone());
    if realtime {
        bundle.set("/linux/resources/cpu", json!({"realtimeRuntime": 50000, "realtimePeriod": 500_000}));
    }
    bundle.script(
        "read -r line < /proc/self/stat; set -- $line; awk -v own=\"${40} ${41}\" '{print own, $41}' /proc/self/stat; true",
    );
    let output = bundle.run()?;
    if output.stderr.contains("peration not permitted") && context.cgroups == Cgroups::V2 {
        return Err(skip("this kernel has no real-time processes outside the root of version 2"));
    }
    Ok(output.ok()?.text().to_owned())
}

fn scheduler_realtime(context: &Context, row: &str) -> Result<()> {
    let (policy, number) = row.split_once(' ').unwrap_or((row, ""));
    let said = |budget: bool| scheduled(context, &json!({"policy": policy, "priority": 7}), budget);
    let said = if super::cgroups::shares_real_time(context) {
        super::cgroups::with_real_time_budget(|| said(true))?
    } else {
        said(false)?
    };
    ensure!(said == format!("7 {number} {number}"), "{said}");
    Ok(())
}

fn scheduler_deadline(context: &Context) -> Result<()> {
    // Such a process cannot fork unless its children are of another policy.
    let mut deadline = json!({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let mut set = |runtime: u64| {
        for (key, value) in [("runtime", runtime), ("deadline", 100_000_000), ("period", 100_000_000)] {
            deadline[key] = json!(value);
        }
        scheduled(context, &deadline, false)
    };
    let said = set(1_000_000)?;
    ensure!(said == "0 6 0", "{said}");
    ensure!(set(100_000_001).is_err(), "a runtime above the deadline was accepted");
    Ok(())
}

fn scheduler_unknown_flag(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_LUCKY"]}));
    bundle.refused().map(drop)
}

fn scheduler_unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/scheduler", json!({"policy": "SCHED_LUCKY"}));
    bundle.refused().map(drop)
}

fn pid_one(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("echo $$; ls /proc | grep -c '^[0-9]'")?;
    ensure!(said.starts_with("1\n"), "{said}");
    Ok(())
}

fn descriptors(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("ls /proc/1/fd; true")?;
    ensure!(said == "0\n1\n2", "{said}");
    Ok(())
}

fn signals(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("awk '/^SigBlk/ {print $2}' /proc/self/status")?;
    ensure!(said == "0000000000000000", "{said}");
    Ok(())
}

fn affinity(context: &Context) -> Result<()> {
    context.needs("cpuset")?;
    let mut bundle = context.bundle()?;
    context.several_cpus()?;
    bundle.set("/linux/resources/cpu", json!({"cpus": "0-1"}));
    bundle.script("awk '/Cpus_allowed_list/ {print $2}' /proc/self/status").save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let runtime = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    let mut command = std::process::Command::new("taskset");
    command.arg("1").arg(runtime.get_program()).args(runtime.get_args()).current_dir(&bundle.path);
    let output = run(&mut command, None)?.ok()?;
    ensure!(output.text() == "0-1", "CPUs {}", output.text());
    Ok(())
}
