//! runtime.md: state, lifecycle, operations.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "state-created",
        "status: created: the runtime has finished the create operation, and the process has not run the program",
        state_created,
    ),
    test("state-fields", "state has ociVersion, id, status, pid, bundle (absolute path) and annotations", state_fields),
    test(
        "state-running-stopped",
        "status: running, then stopped when the container process has exited",
        running_then_stopped,
    ),
    test(
        "state-unknown-id",
        "state: MUST generate an error if it is not provided the ID of a container",
        state_unknown,
    ),
    test("create-does-not-run", "create: the user-specified program MUST NOT be run", create_does_not_run),
    test(
        "create-id-in-use",
        "create: if the ID provided is not unique across all containers within the scope of the runtime, it MUST generate an error",
        id_in_use,
    ),
    test(
        "create-failed-leaves-nothing",
        "create: on an error the container is as if it had not been created",
        failed_create_leaves_nothing,
    ),
    test(
        "create-config-is-fixed",
        "any changes made to config.json after create MUST NOT have an effect on the container",
        config_is_fixed,
    ),
    test("create-without-config", "create: there must be a config.json at the root of the bundle", without_config),
    test(
        "create-oci-version",
        "ociVersion MUST be in SemVer v2.0.0 format; an unsupported one is refused",
        oci_version,
    ),
    test("start-unknown-id", "start: MUST generate an error if it is not provided the container ID", start_unknown),
    test(
        "start-running",
        "start: attempting to start a container that is not created MUST have no effect on the container and MUST generate an error",
        start_running,
    ),
    test("start-stopped", "start: a container that is not created MUST NOT be started", start_stopped),
    test("kill-signal", "kill: MUST send the specified signal to the container process", kill_signal),
    test("kill-by-number-and-name", "kill: TERM, SIGTERM and 15 are the same", kill_spellings),
    test("kill-created", "kill: a created container can be killed", kill_created),
    test(
        "kill-stopped",
        "kill: attempting to send a signal to a container that is neither created nor running MUST generate an error",
        kill_stopped,
    ),
    test("kill-unknown-id", "kill: MUST generate an error if it is not provided the container ID", kill_unknown),
    test("delete-stopped", "delete: MUST delete the resources that were created during create", delete_stopped),
    test(
        "delete-running",
        "delete: attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an error",
        delete_running,
    ),
    test("delete-unknown-id", "delete: MUST generate an error if it is not provided the container ID", delete_unknown),
    test("delete-force", "delete --force of a running container ends and removes it", delete_force),
    test("delete-force-unknown", "delete --force of an unknown container is no error", delete_force_unknown),
    test("id-reusable", "once a container is deleted its ID MAY be used by a subsequent container", id_reusable),
    test("pause-resume", "pause stops all processes, resume lets them go on, state says paused", pause_resume),
    test(
        "shared-pid-namespace-delete",
        "delete ends all processes of a container without a pid namespace of its own",
        shared_pid_delete,
    ),
    test("short-processes", "run of a process that ends at once reports its status every time", short_processes),
];

fn state_created(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let state = bundle.state()?;
    ensure!(state["status"] == "created", "{state}");
    ensure!(state["pid"].as_u64().is_some_and(|pid| pid > 1), "{state}");
    Ok(())
}

fn state_fields(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/annotations", json!({"org.example.key": "value"}));
    bundle.created()?;
    let state = bundle.state()?;
    ensure!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "ociVersion: {state}");
    ensure!(state["id"] == bundle.id.as_str(), "id: {state}");
    ensure!(state["bundle"] == bundle.path.to_string_lossy().as_ref(), "bundle: {state}");
    ensure!(state["annotations"]["org.example.key"] == "value", "annotations: {state}");
    Ok(())
}

fn running_then_stopped(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    bundle.wait_for("running")?;
    bundle.kill("KILL")?.ok()?;
    bundle.wait_for("stopped")
}

fn state_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    ensure!(!bundle.runtime(&["state", "no-such-container"])?.success(), "state succeeded");
    ensure!(!bundle.runtime(&["state"])?.success(), "state without an ID succeeded");
    Ok(())
}

fn create_does_not_run(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("touch /ran");
    bundle.created()?;
    ensure!(!bundle.rootfs().join("ran").exists(), "the program ran before start");
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    ensure!(bundle.rootfs().join("ran").exists(), "the program did not run after start");
    Ok(())
}

fn id_in_use(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    ensure!(!bundle.create()?.success(), "a second create with the same ID succeeded");
    ensure!(bundle.state()?["status"] == "created", "the first container was harmed");
    Ok(())
}

fn failed_create_leaves_nothing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("bind", "/no/such/source", "/mnt", &["bind"]);
    ensure!(!bundle.create()?.success(), "create succeeded with a missing mount source");
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "state knows the failed container");
    ensure!(!context.work.join("state").join(&bundle.id).exists(), "its state folder is still there");
    for line in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let left = line.path().join("berth-test").join(&bundle.id);
        ensure!(!crate::cleanup::is_cgroup(&left), "its cgroup {} is still there", left.display());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(bundle.path.to_string_lossy().as_ref()), "its mounts are still there");
    Ok(())
}

fn config_is_fixed(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("echo first > /said");
    bundle.created()?;
    bundle.script("echo second > /said").save()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    ensure!(fs::read_to_string(bundle.rootfs().join("said"))?.trim() == "first", "the changed process ran");
    Ok(())
}

fn without_config(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    let path = bundle.path.to_string_lossy().into_owned();
    ensure!(!bundle.runtime(&["create", "--bundle", &path, &bundle.id])?.success(), "create without config.json");
    Ok(())
}

fn oci_version(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/ociVersion", json!("not a version"));
    bundle.refused()?;
    bundle.set("/ociVersion", json!("7.0.0"));
    bundle.refused().map(drop)
}

fn start_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    ensure!(!bundle.runtime(&["start", "no-such-container"])?.success(), "start succeeded");
    ensure!(!bundle.runtime(&["start"])?.success(), "start without an ID succeeded");
    Ok(())
}

fn start_running(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    ensure!(!bundle.start()?.success(), "a running container was started");
    ensure!(bundle.state()?["status"] == "running", "it does not run any more");
    Ok(())
}

fn start_stopped(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    ensure!(!bundle.start()?.success(), "a stopped container was started");
    Ok(())
}

fn kill_signal(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("trap 'echo usr1 > /got; exit' USR1; touch /ready; while :; do usleep 10000; done");
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for_file(&bundle.rootfs().join("ready"), |_| bundle.rootfs().join("ready").exists())?;
    bundle.kill("USR1")?.ok()?;
    bundle.wait_for_file(&bundle.rootfs().join("got"), |text| text.trim() == "usr1")?;
    bundle.wait_for("stopped")
}

fn kill_spellings(context: &Context) -> Result<()> {
    for signal in ["TERM", "SIGTERM", "15", "term"] {
        let mut bundle = context.bundle()?;
        bundle.script("trap 'exit' TERM; touch /ready; while :; do usleep 10000; done");
        bundle.created()?;
        bundle.start()?.ok()?;
        bundle.wait_for_file(&bundle.rootfs().join("ready"), |_| bundle.rootfs().join("ready").exists())?;
        bundle.kill(signal)?.ok()?;
        bundle.wait_for("stopped")?;
    }
    let mut bundle = context.bundle()?;
    bundle.started()?;
    ensure!(!bundle.kill("NOSUCHSIGNAL")?.success(), "an unknown signal was accepted");
    Ok(())
}

fn kill_created(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    bundle.kill("KILL")?.ok()?;
    bundle.wait_for("stopped")
}

fn kill_stopped(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    ensure!(!bundle.kill("TERM")?.success(), "kill of a stopped container succeeded");
    Ok(())
}

fn kill_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    ensure!(!bundle.runtime(&["kill", "no-such-container", "KILL"])?.success(), "kill succeeded");
    Ok(())
}

fn delete_stopped(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let cgroup = bundle.cgroup("pids", bundle.pid()?)?;
    bundle.start()?.ok()?;
    bundle.wait_for("stopped")?;
    bundle.delete()?.ok()?;
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "state still knows it");
    ensure!(!cgroup.exists(), "its cgroup {} is still there", cgroup.display());
    ensure!(!context.work.join("state").join(&bundle.id).exists(), "its state folder is still there");
    Ok(())
}

fn delete_running(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    ensure!(!bundle.delete()?.success(), "a running container was deleted");
    ensure!(bundle.state()?["status"] == "running", "it was harmed");
    Ok(())
}

fn delete_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    ensure!(!bundle.runtime(&["delete", "no-such-container"])?.success(), "delete succeeded");
    Ok(())
}

fn delete_force(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let pid = bundle.pid()?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "state still knows it");
    let alive = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    ensure!(!alive, "its process still runs");
    Ok(())
}

fn delete_force_unknown(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.runtime(&["delete", "--force", "no-such-container"])?.ok().map(drop)
}

fn id_reusable(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for round in ["one", "two", "three"] {
        let said = bundle.run_script(&format!("echo {round}"))?;
        ensure!(said == round, "{said:?}");
    }
    Ok(())
}

fn pause_resume(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("while :; do echo x >> /count; usleep 5000; done");
    bundle.created()?;
    bundle.start()?.ok()?;
    let count = bundle.rootfs().join("count");
    bundle.wait_for_file(&count, |text| text.len() > 4)?;
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    ensure!(bundle.state()?["status"] == "paused", "{}", bundle.state()?);
    let before = fs::metadata(&count)?.len();
    for _ in 0..5 {
        bundle.state()?;
    }
    ensure!(fs::metadata(&count)?.len() == before, "processes go on while paused");
    bundle.runtime(&["resume", &bundle.id])?.ok()?;
    let length = usize::try_from(before)?;
    bundle.wait_for_file(&count, |text| text.len() > length)?;
    bundle.wait_for("running")
}

fn shared_pid_delete(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.without_namespace("pid");
    // A background process that outlives the first one.
    bundle.script("setsid sleep 300 & echo $! > /child; exit 0");
    bundle.created()?;
    bundle.start()?.ok()?;
    let child = bundle.wait_for_file(&bundle.rootfs().join("child"), |text| text.ends_with('\n'))?;
    bundle.wait_for("stopped")?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    ensure!(stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")), "process {} is still there", child.trim());
    Ok(())
}

fn short_processes(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    for round in 0..30 {
        let want = round % 4;
        bundle.script(&format!("exit {want}"));
        let code = bundle.run()?.code();
        ensure!(code == want, "round {round}: exit status {code} instead of {want}");
    }
    Ok(())
}
