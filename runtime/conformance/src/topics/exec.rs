//! `exec`: a further process in a running container.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::command::run;
use crate::context::{Cgroups, Context};
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("output-and-status", "exec prints the output and exits with the status of the process", output_and_status),
    test("killed-status", "exec exits with 128 more than the signal", killed_status),
    test("not-found", "exec of a program that does not exist is an error that names it", not_found),
    test("stdin", "standard input reaches the process", stdin),
    test("namespaces", "the process is in all namespaces of the container", namespaces),
    test("cgroup", "the process is in the cgroups of the container", cgroup),
    test("env", "--env adds to the environment of the container's process", env),
    test("cwd", "--cwd is the working directory", cwd),
    test("user", "--user UID:GID", user),
    test("additional-gids", "--additional-gids", additional_gids),
    test("capabilities", "the process has the capabilities of the container's process", capabilities),
    test("cap", "--cap adds capabilities", cap),
    test("no-new-privs", "--no-new-privs", no_new_privs),
    test("process-file", "--process reads a process object", process_file),
    test("detach", "--detach with --pid-file", detach),
    test("rlimits-and-oom", "rlimits and oom score of the process object", rlimits),
    test("created", "exec into a container that is created, but not started, works as in runc", into_created),
    test("stopped", "exec into a stopped container is an error", into_stopped),
    test("unknown", "exec into an unknown container is an error", into_unknown),
    test("preserve-fds", "--preserve-fds passes descriptors from 3 on", preserve_fds),
    test("no-other-descriptors", "no descriptor of the runtime's caller reaches the process", descriptors),
    test("cpu-affinity", "execCPUAffinity: the CPUs of the process after its start", affinity),
    test(
        "cpu-affinity-initial",
        "execCPUAffinity: initial is for the time before the cgroup is entered",
        affinity_initial,
    ),
    test("cpu-affinity-invalid", "execCPUAffinity: what is no list of CPUs is an error", affinity_invalid),
    test("sub-cgroup", "--cgroup puts the process into a cgroup below the container's", sub_cgroup),
    test("parallel", "many at once", parallel),
];

fn output_and_status(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.exec(&[], "echo out; echo err >&2; exit 9")?;
    ensure!(output.text() == "out" && output.stderr.trim() == "err" && output.code() == 9, "{output:?}");
    Ok(())
}

fn killed_status(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.exec(&[], "kill -TERM $$")?;
    ensure!(output.code() == 128 + 15, "{}", output.code());
    Ok(())
}

fn not_found(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.runtime(&["exec", &bundle.id, "/no/such/program"])?;
    ensure!(!output.success() && output.stderr.contains("/no/such/program"), "{output:?}");
    Ok(())
}

fn stdin(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = run(&mut bundle.command(&["exec", &bundle.id, "tr", "a-z", "A-Z"]), Some("some text"))?.ok()?;
    ensure!(output.text() == "SOME TEXT", "{}", output.text());
    Ok(())
}

fn namespaces(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.started()?;
    let pid = bundle.pid()?;
    let said =
        bundle.exec(&[], "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done")?.ok()?;
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let want = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        ensure!(said.stdout.contains(want.to_string_lossy().as_ref()), "{} lacks {}", said.stdout, want.display());
    }
    Ok(())
}

fn cgroup(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let id = bundle.id.clone();
    bundle.runtime(&["exec", "--detach", &id, "sleep", "60"])?.ok()?;
    let procs = fs::read_to_string(bundle.cgroup("pids", bundle.pid()?)?.join("cgroup.procs"))?;
    let commands: Vec<String> = procs
        .lines()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " "))
        .collect();
    ensure!(commands.iter().any(|command| command.trim() == "sleep 60"), "{commands:?}");
    Ok(())
}

fn env(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "FROM=config", "KEPT=yes"]));
    bundle.started()?;
    let said = bundle.exec(&["--env", "FROM=exec", "--env", "MORE=1"], "echo $FROM $KEPT $MORE")?.ok()?;
    ensure!(said.text() == "exec yes 1", "{}", said.text());
    Ok(())
}

fn cwd(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said = bundle.exec(&["--cwd", "/tmp"], "pwd")?.ok()?;
    ensure!(said.text() == "/tmp", "{}", said.text());
    Ok(())
}

fn user(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said =
        bundle.exec(&["--user", "1000:1001"], "id -u; id -g; awk '/^CapEff/ {print $2}' /proc/self/status")?.ok()?;
    ensure!(said.text() == "1000\n1001\n0000000000000000", "{}", said.text());
    Ok(())
}

fn additional_gids(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let options = ["--user", "1000:1000", "--additional-gids", "7", "--additional-gids", "8"];
    let said = bundle.exec(&options, "awk '/^Groups/ {print $2, $3}' /proc/self/status")?.ok()?;
    ensure!(said.text() == "7 8", "{}", said.text());
    Ok(())
}

fn capabilities(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said = bundle.exec(&[], "cat /proc/1/status /proc/self/status | awk '/^Cap/ {print $2}'")?.ok()?;
    let lines: Vec<&str> = said.text().lines().collect();
    ensure!(lines.len() == 10 && lines[..5] == lines[5..], "{}", said.text());
    Ok(())
}

fn cap(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let said = bundle.exec(&["--cap", "CAP_NET_RAW"], "awk '/^CapEff|^CapPrm/ {print $2}' /proc/self/status")?.ok()?;
    for line in said.text().lines() {
        ensure!(u64::from_str_radix(line, 16)? & (1 << 13) != 0, "{}", said.text());
    }
    Ok(())
}

fn no_new_privs(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.started()?;
    let read = "awk '/^NoNewPrivs/ {print $2}' /proc/self/status";
    let without = bundle.exec(&[], read)?.ok()?;
    let with = bundle.exec(&["--no-new-privs"], read)?.ok()?;
    ensure!((without.text(), with.text()) == ("0", "1"), "{} {}", without.text(), with.text());
    Ok(())
}

fn with_process(bundle: &crate::bundle::Bundle<'_>, process: serde_json::Value) -> Result<crate::command::Output> {
    let file = bundle.path.join("process.json");
    fs::write(&file, process.to_string())?;
    bundle.runtime(&["exec", "--process", &file.to_string_lossy(), &bundle.id])
}

fn process_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let process = json!({
        "user": {"uid": 5, "gid": 6}, "cwd": "/tmp", "env": ["PATH=/bin", "A=b"],
        "args": ["sh", "-c", "id -u; id -g; pwd; echo $A"],
    });
    let said = with_process(&bundle, process)?.ok()?;
    ensure!(said.text() == "5\n6\n/tmp\nb", "{}", said.text());
    Ok(())
}

fn rlimits(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 444,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}],
        "args": ["sh", "-c", "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"],
    });
    let said = with_process(&bundle, process)?.ok()?;
    ensure!(said.text() == "77\n78\n444", "{}", said.text());
    Ok(())
}

fn detach(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let file = bundle.path.join("pid");
    bundle.runtime(&["exec", "--detach", "--pid-file", &file.to_string_lossy(), &bundle.id, "sleep", "60"])?.ok()?;
    let pid = fs::read_to_string(&file)?;
    let pid: u32 = pid.trim().parse()?;
    // The runtime may be back before the process has become the program.
    let command = PathBuf::from(format!("/proc/{pid}/cmdline"));
    bundle.wait_for_file(&command, |command| command.starts_with("sleep")).map(drop)
}

fn into_created(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let said = bundle.exec(&[], "echo inside")?.ok()?;
    ensure!(said.text() == "inside", "{}", said.text());
    Ok(())
}

fn into_stopped(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    ensure!(!bundle.exec(&[], "true")?.success(), "exec succeeded");
    Ok(())
}

fn into_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    ensure!(!bundle.exec(&[], "true")?.success(), "exec succeeded");
    Ok(())
}

fn preserve_fds(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let file = bundle.path.join("passed");
    fs::write(&file, "through")?;
    let runtime = bundle.command(&["exec", "--preserve-fds", "1", &bundle.id, "cat", "/proc/self/fd/3"]);
    let said = with_descriptor(&runtime, &file)?.ok()?;
    ensure!(said.text() == "through", "{}", said.text());
    Ok(())
}

/// Runs the command with a file open at descriptor 3.
fn with_descriptor(runtime: &std::process::Command, file: &std::path::Path) -> Result<crate::command::Output> {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "file=$1; shift; exec \"$@\" 3< \"$file\"", "sh"]).arg(file);
    command.arg(runtime.get_program()).args(runtime.get_args());
    run(&mut command, None)
}

fn descriptors(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let runtime = bundle.command(&["exec", &bundle.id, "sh", "-c", "ls /proc/$$/fd; true"]);
    let said = with_descriptor(&runtime, std::path::Path::new("/"))?.ok()?;
    ensure!(said.text().split_whitespace().eq(["0", "1", "2"]), "{}", said.text());
    Ok(())
}

fn affinity(context: &Context) -> Result<()> {
    context.several_cpus()?;
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0")).set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"}));
    bundle.started()?;
    let said = bundle.exec(&[], "awk '/^Cpus_allowed_list/ {print $2}' /proc/self/status")?.ok()?;
    ensure!(said.text() == "1", "{}", said.text());
    Ok(())
}

fn affinity_initial(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("1.3.0")).set("/process/execCPUAffinity", json!({"initial": "0"}));
    bundle.started()?;
    let trace = bundle.path.join("trace");
    let mut command = context.traced(&["-y", "-e", "trace=sched_setaffinity,write,clone3"], &trace)?;
    command.args(["exec", &bundle.id, "awk", "/^Cpus_allowed_list/ {print $2}", "/proc/self/status"]);
    let allowed = run(&mut command, None)?.ok()?;
    let calls = fs::read_to_string(trace)?;
    let set = calls.lines().position(|line| line.contains("sched_setaffinity(") && line.contains("[0]"));
    let set = set.with_context(|| format!("it was never set: {calls}"))?;
    if context.cgroups == Cgroups::V1 {
        let entered = calls
            .lines()
            .position(|line| line.contains("write(") && (line.contains("/tasks>") || line.contains("/cgroup.procs>")));
        ensure!(entered.is_some_and(|entered| set < entered), "the cgroup was entered before: {calls}");
    }
    // And for that time only.
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    ensure!(allowed.text() == online.trim(), "CPUs {} of {online}", allowed.text());
    Ok(())
}

fn affinity_invalid(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let process = bundle.path.join("process.json");
    let affinity = json!({"args": ["true"], "cwd": "/", "execCPUAffinity": {"final": "1-x"}});
    fs::write(&process, affinity.to_string())?;
    let output = bundle.runtime(&["exec", "--process", &process.to_string_lossy(), &bundle.id])?;
    ensure!(!output.success(), "it was accepted");
    Ok(())
}

fn sub_cgroup(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    let v1 = context.cgroups == Cgroups::V1;
    fs::create_dir(folder.join("below"))?;
    let option = if v1 { "pids:below" } else { "below" };
    bundle.runtime(&["exec", "--detach", "--cgroup", option, &bundle.id, "sleep", "60"])?.ok()?;
    let procs = fs::read_to_string(folder.join("below/cgroup.procs"))?;
    ensure!(!procs.trim().is_empty(), "nothing is in it");
    Ok(())
}

fn parallel(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let bundle = &bundle;
        let one = |number: usize| {
            move || {
                let output = bundle.exec(&[], &format!("echo {number}"));
                match output {
                    Ok(output) if output.text() == number.to_string() && output.success() => None,
                    Ok(output) => Some(format!("{number}: {output:?}")),
                    Err(error) => Some(format!("{number}: {error:#}")),
                }
            }
        };
        let threads: Vec<_> = (0..16).map(|number| scope.spawn(one(number))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    ensure!(failures.is_empty(), "{failures:?}");
    Ok(())
}
