//! config.md "POSIX-platform Hooks", runtime.md "Lifecycle".

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::context::Context;
use crate::suite::{Test, case, test};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub(crate) const TESTS: &[Test] = &[
    test(
        "order",
        "runtime.md lifecycle: prestart, createRuntime, createContainer with create; startContainer, process, poststart with start; poststop with delete",
        order,
    ),
    test("listed-order", "hooks MUST be called in the listed order", listed_order),
    test("create-hooks-before-start", "startContainer and poststart MUST NOT run before start", create_hooks_only),
    test(
        "poststart-after-process",
        "poststart: after the user-specified process is executed (runc#4347, crun#406)",
        poststart_after_process,
    ),
    case("state-prestart", "the state of the container MUST be passed to hooks over stdin", state_on_stdin, "prestart"),
    case(
        "state-createRuntime",
        "the state of the container MUST be passed to hooks over stdin",
        state_on_stdin,
        "createRuntime",
    ),
    case(
        "state-createContainer",
        "the state of the container MUST be passed to hooks over stdin",
        state_on_stdin,
        "createContainer",
    ),
    case(
        "state-startContainer",
        "the state of the container MUST be passed to hooks over stdin",
        state_on_stdin,
        "startContainer",
    ),
    case(
        "state-poststart",
        "the state of the container MUST be passed to hooks over stdin",
        state_on_stdin,
        "poststart",
    ),
    case("state-poststop", "the state of the container MUST be passed to hooks over stdin", state_on_stdin, "poststop"),
    case(
        "pid-outside",
        "runtime.md: for hooks executed in the runtime namespace, pid is as seen by the runtime",
        pid_in_state,
        "createRuntime",
    ),
    case(
        "pid-inside-createContainer",
        "runtime.md: for hooks executed in the container namespace, pid is as seen by the container",
        pid_in_state,
        "createContainer",
    ),
    case(
        "pid-inside-startContainer",
        "runtime.md: for hooks executed in the container namespace, pid is as seen by the container",
        pid_in_state,
        "startContainer",
    ),
    case(
        "failing-prestart",
        "if any prestart hook fails, the runtime MUST generate an error, stop the container",
        failing,
        "prestart",
    ),
    case(
        "failing-createRuntime",
        "if any createRuntime hook fails, the runtime MUST generate an error, stop the container",
        failing,
        "createRuntime",
    ),
    case(
        "failing-createContainer",
        "if any createContainer hook fails, the runtime MUST generate an error, stop the container",
        failing,
        "createContainer",
    ),
    case(
        "failing-startContainer",
        "if any startContainer hook fails, the runtime MUST generate an error, stop the container",
        failing,
        "startContainer",
    ),
    case(
        "failing-poststart",
        "1.3: if any poststart hook fails, the runtime MUST generate an error, stop the container",
        failing,
        "poststart",
    ),
    case(
        "failing-prestart-destroys",
        "runtime.md 3, 12, 13: the container MUST be destroyed, the poststop hooks MUST be invoked",
        failing_destroys,
        "prestart",
    ),
    case(
        "failing-startContainer-destroys",
        "runtime.md 7, 12, 13: the container MUST be destroyed, the poststop hooks MUST be invoked",
        failing_destroys,
        "startContainer",
    ),
    case(
        "failing-poststart-destroys",
        "runtime.md 9, 12, 13: the container MUST be destroyed, the poststop hooks MUST be invoked",
        failing_destroys,
        "poststart",
    ),
    test(
        "failing-poststop",
        "if any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue",
        failing_poststop,
    ),
    test("error-shows-output", "the error of a failing hook tells what it wrote to standard error", error_shows_output),
    test("arguments-and-environment", "args and env have the semantics of execve", arguments),
    test(
        "environment-only-its-own",
        "CVE-2025-23266: a hook has the environment of hook.env and nothing else",
        environment,
    ),
    test("unread-state", "hooks of all kinds may leave the state on stdin unread, however large it is", unread_state),
    test("timeout", "timeout: the number of seconds before aborting the hook", timeout),
    test("timeout-zero", "timeout: if set, timeout MUST be greater than zero", timeout_zero),
    test("path-relative", "path: an absolute path", relative_path),
    test("runtime-namespace", "createRuntime hooks run in the runtime namespace", runtime_namespace),
    test(
        "container-namespace",
        "createContainer hooks run in the container namespace, their path resolves in the runtime's",
        container_namespace,
    ),
    test(
        "container-sees-mounts",
        "createContainer hooks run after the mounts are made and before pivot_root (crun#2167)",
        container_sees_mounts,
    ),
    test(
        "start-container-inside",
        "startContainer: path and process resolve in the container namespace",
        start_container_inside,
    ),
];

fn log(bundle: &Bundle<'_>) -> String {
    bundle.path.join("log").to_string_lossy().into_owned()
}

/// A hook that runs a script on the host. Hooks inside the container have busybox at /bin/sh too.
fn script(text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin"]})
}

/// Every kind appends its name to a file that host and container share.
fn logging(bundle: &mut Bundle<'_>) -> Result<()> {
    let folder = bundle.path.join("shared");
    fs::create_dir(&folder)?;
    let outside = folder.to_string_lossy().into_owned();
    bundle.mount("bind", &outside, "/shared", &["bind"]);
    for kind in KINDS {
        let folder = if kind == "startContainer" { "/shared" } else { &outside };
        bundle.push(&format!("/hooks/{kind}"), script(&format!("echo {kind} >> {folder}/log")));
    }
    bundle.script("echo process >> /shared/log");
    Ok(())
}

fn unread_state(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    // More than a pipe holds; and a first process that no PID namespace protects from a signal of a broken one.
    bundle.set("/annotations", json!({"large": "x".repeat(100_000)}));
    bundle.without_namespace("pid");
    logging(&mut bundle)?;
    bundle.output()?;
    let ran = fs::read_to_string(bundle.path.join("shared/log"))?;
    ensure!(ran.lines().count() == KINDS.len() + 1, "{ran:?}");
    Ok(())
}

fn order(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    logging(&mut bundle)?;
    // A process that is still there when poststart runs.
    bundle.script("echo process >> /shared/log; usleep 200000");
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    bundle.delete()?.ok()?;
    let text = fs::read_to_string(bundle.path.join("shared/log"))?;
    let said: Vec<&str> = text.lines().filter(|line| *line != "process").collect();
    ensure!(said == KINDS, "{said:?}");
    ensure!(text.contains("process"), "the process did not run");
    Ok(())
}

fn listed_order(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    for word in ["one", "two", "three"] {
        bundle.push("/hooks/createRuntime", script(&format!("echo {word} >> {log}")));
    }
    bundle.output()?;
    ensure!(fs::read_to_string(&log)? == "one\ntwo\nthree\n", "{}", fs::read_to_string(&log)?);
    Ok(())
}

fn create_hooks_only(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    logging(&mut bundle)?;
    bundle.created()?;
    let text = fs::read_to_string(bundle.path.join("shared/log"))?;
    ensure!(text == "prestart\ncreateRuntime\ncreateContainer\n", "{text:?}");
    Ok(())
}

fn poststart_after_process(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let fifo = bundle.rootfs().join("fifo");
    crate::command::run(std::process::Command::new("mkfifo").arg(&fifo), None)?.ok()?;
    let (log, fifo) = (log(&bundle), fifo.to_string_lossy().into_owned());
    // The hook gets an answer only from the running process.
    bundle.push("/hooks/poststart", script(&format!("timeout 5 cat {fifo} > {log}")));
    bundle.script("echo running > /fifo");
    bundle.created()?;
    bundle.start()?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    ensure!(said == "running\n", "the hook ran before the process: it read {said:?}");
    Ok(())
}

fn state_on_stdin(context: &Context, kind: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    let place = if kind == "startContainer" { "/state" } else { &log };
    bundle.push(&format!("/hooks/{kind}"), script(&format!("cat > {place}")));
    bundle.set("/annotations", json!({"org.example.key": "value"}));
    bundle.script("usleep 200000");
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    bundle.delete()?.ok()?;
    let text = if kind == "startContainer" {
        fs::read_to_string(bundle.rootfs().join("state"))
    } else {
        fs::read_to_string(&log)
    };
    let text = text.context("the hook did not run")?;
    let state: Value = serde_json::from_str(&text).with_context(|| format!("the hook read {text:?}"))?;
    ensure!(state["id"] == bundle.id.as_str(), "id: {state}");
    ensure!(state["bundle"] == bundle.path.to_string_lossy().as_ref(), "bundle: {state}");
    ensure!(state["ociVersion"].is_string(), "ociVersion: {state}");
    ensure!(state["annotations"]["org.example.key"] == "value", "annotations: {state}");
    let want = match kind {
        "prestart" | "createRuntime" | "createContainer" => "creating",
        "startContainer" => "created",
        "poststart" => "running",
        _ => "stopped",
    };
    // 1.0 had no word for the hooks of create; many runtimes say created there.
    let accepted = state["status"] == want || (want == "creating" && state["status"] == "created");
    ensure!(accepted, "status {} instead of {want}", state["status"]);
    if kind != "poststop" {
        ensure!(state["pid"].as_u64().is_some_and(|pid| pid > 0), "pid: {state}");
    }
    Ok(())
}

fn pid_in_state(context: &Context, kind: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    let place = if kind == "startContainer" { "/state" } else { &log };
    bundle.push(&format!("/hooks/{kind}"), script(&format!("cat > {place}")));
    bundle.started()?;
    let place = if kind == "startContainer" { bundle.rootfs().join("state") } else { log.into() };
    let text = fs::read_to_string(place).context("the hook did not run")?;
    let state: Value = serde_json::from_str(&text)?;
    let want = if kind == "createRuntime" { bundle.pid()? } else { 1 };
    ensure!(state["pid"] == want, "pid {} instead of {want}", state["pid"]);
    Ok(())
}

/// Neither a later hook of its kind runs, nor, before the start, the program.
fn failing_destroys(context: &Context, kind: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    logging(&mut bundle)?;
    let folder = if kind == "startContainer" {
        "/shared".to_owned()
    } else {
        bundle.path.join("shared").to_string_lossy().into_owned()
    };
    bundle.push(&format!("/hooks/{kind}"), script("exit 3"));
    bundle.push(&format!("/hooks/{kind}"), script(&format!("echo later >> {folder}/log")));
    bundle.script("echo process >> /shared/log; sleep 60");
    if kind == "prestart" {
        ensure!(!bundle.create()?.success(), "create succeeded");
    } else {
        bundle.created()?;
        ensure!(!bundle.start()?.success(), "start succeeded");
    }
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "the container is still there");
    let ran = fs::read_to_string(bundle.path.join("shared/log"))?;
    let lines: Vec<&str> = ran.lines().collect();
    ensure!(lines.contains(&kind) && lines.last() == Some(&"poststop") && !lines.contains(&"later"), "{lines:?}");
    ensure!(kind == "poststart" || !lines.contains(&"process"), "the program ran: {lines:?}");
    Ok(())
}

fn failing(context: &Context, kind: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push(&format!("/hooks/{kind}"), script("exit 3"));
    bundle.script("sleep 5");
    let create = bundle.create()?;
    if !matches!(kind, "startContainer" | "poststart") {
        ensure!(!create.success(), "create succeeded");
        ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "the container is still there");
        return Ok(());
    }
    create.ok()?;
    ensure!(!bundle.start()?.success(), "start succeeded");
    let state = bundle.runtime(&["state", &bundle.id])?;
    ensure!(!state.success() || state.stdout.contains("stopped"), "the container is not stopped: {}", state.stdout);
    Ok(())
}

fn failing_poststop(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    bundle.push("/hooks/poststop", script("exit 3"));
    bundle.push("/hooks/poststop", script(&format!("echo second > {log}")));
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    bundle.delete()?.ok().context("delete")?;
    ensure!(fs::read_to_string(&log).unwrap_or_default() == "second\n", "the second hook did not run");
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "the container is still there");
    Ok(())
}

fn error_shows_output(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/hooks/createRuntime", script("echo the cause of it >&2; exit 3"));
    let output = bundle.create()?;
    ensure!(!output.success(), "create succeeded");
    ensure!(output.stderr.contains("the cause of it"), "{:?}", output.stderr);
    Ok(())
}

fn arguments(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    bundle.push(
        "/hooks/createRuntime",
        json!({"path": "/bin/sh", "args": ["name", "-c", format!("echo \"$0 $1 $WORD\" > {log}"), "zero", "one two"], "env": ["WORD=here"]}),
    );
    bundle.output()?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.trim() == "zero one two here", "{said:?}");
    Ok(())
}

pub(super) fn environment(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    bundle.set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=/evil.so"]));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let text = format!("tr '\\0' '\\n' < /proc/self/environ >> {log}");
        bundle.push(
            &format!("/hooks/{kind}"),
            json!({"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin", "ONLY=this"]}),
        );
    }
    bundle.script("usleep 100000");
    bundle.save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    crate::command::run(command.env("CONFORMANCE_SECRET", "leaked"), None)?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("ONLY=this"), "{said:?}");
    ensure!(!said.contains("LD_PRELOAD"), "the environment of the process: {said}");
    ensure!(!said.contains("CONFORMANCE_SECRET"), "the environment of the runtime's caller: {said}");
    Ok(())
}

fn timeout(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let mut hook = script("exec sleep 60");
    hook["timeout"] = json!(1);
    bundle.push("/hooks/createRuntime", hook);
    let start = std::time::Instant::now();
    ensure!(!bundle.create()?.success(), "create succeeded");
    ensure!(start.elapsed().as_secs() < 10, "after {:?}", start.elapsed());
    Ok(())
}

fn timeout_zero(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let mut hook = script("true");
    hook["timeout"] = json!(0);
    bundle.push("/hooks/createRuntime", hook);
    bundle.refused().map(drop)
}

fn relative_path(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "sh", "args": ["sh", "-c", "true"]}));
    bundle.refused().map(drop)
}

fn runtime_namespace(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    bundle.push("/hooks/createRuntime", script(&format!("readlink /proc/self/ns/mnt /proc/self/ns/net > {log}")));
    bundle.output()?;
    let said = fs::read_to_string(&log)?;
    for name in ["mnt", "net"] {
        let ours = fs::read_link(format!("/proc/self/ns/{name}"))?;
        ensure!(said.contains(ours.to_string_lossy().as_ref()), "{said} lacks {}", ours.display());
    }
    Ok(())
}

fn container_namespace(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let log = log(&bundle);
    bundle.push("/hooks/createContainer", script(&format!("readlink /proc/self/ns/mnt /proc/self/ns/net > {log}")));
    bundle.output()?;
    let said = fs::read_to_string(&log)?;
    for name in ["mnt", "net"] {
        let ours = fs::read_link(format!("/proc/self/ns/{name}"))?;
        ensure!(!said.contains(ours.to_string_lossy().as_ref()), "{name} is the host's: {said}");
    }
    Ok(())
}

fn container_sees_mounts(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let (log, rootfs) = (log(&bundle), bundle.rootfs().to_string_lossy().into_owned());
    bundle.mount("tmpfs", "seen", "/mnt", &[]);
    bundle.push(
        "/hooks/createContainer",
        script(&format!("grep -c '{rootfs}/mnt\\|{rootfs}/proc ' /proc/self/mountinfo > {log}")),
    );
    bundle.output()?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.trim() == "2", "{} of the mounts of /mnt and /proc were there", said.trim());
    Ok(())
}

fn start_container_inside(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.program(
        "inside",
        b"#!/bin/sh\necho $$ > /tmp/hook; grep -q ' /proc ' /proc/self/mountinfo && echo proc >> /tmp/hook\n",
    )?;
    bundle.push("/hooks/startContainer", json!({"path": "/inside", "args": ["inside"], "env": ["PATH=/bin"]}));
    let said = bundle.run_script("cat /tmp/hook")?;
    ensure!(said.ends_with("proc"), "{said:?}");
    Ok(())
}
