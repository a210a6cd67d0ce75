//! The command line as callers of runc use it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("version", "--version prints the version and `spec:`", version),
    test("help", "--help names the commands", help),
    case(
        "help-create",
        "create --help",
        command_help,
        "create --bundle --console-socket --pid-file --no-pivot --preserve-fds",
    ),
    case(
        "help-run",
        "run --help",
        command_help,
        "run --bundle --detach --keep --console-socket --pid-file --no-new-keyring --preserve-fds",
    ),
    case(
        "help-exec",
        "exec --help",
        command_help,
        "exec --console-socket --cwd --env --tty --user --additional-gids --process --detach --pid-file --process-label --apparmor --no-new-privs --cap --preserve-fds --cgroup --ignore-paused",
    ),
    case(
        "help-update",
        "update --help",
        command_help,
        "update --resources --memory --cpu-quota --pids-limit --cpu-share --cpuset-cpus --memory-swap --blkio-weight",
    ),
    case(
        "help-checkpoint",
        "checkpoint --help",
        command_help,
        "checkpoint --image-path --work-path --leave-running --tcp-established --ext-unix-sk --shell-job --file-locks --pre-dump --parent-path --manage-cgroups-mode",
    ),
    case(
        "help-restore",
        "restore --help",
        command_help,
        "restore --image-path --work-path --bundle --detach --pid-file --tcp-established --ext-unix-sk --shell-job --file-locks --console-socket",
    ),
    test("unknown-flag", "an unknown flag is an error", unknown_flag),
    test("unknown-command", "an unknown command is an error", unknown_command),
    test("flags-after-id", "flags after the id are read where runc reads them: delete ID --force", flags_after),
    test("root", "--root: state is kept there, and only there", root),
    test("invalid-id", "CVE-2024-5154 and kin: an id with a slash or dots only is refused", invalid_id),
    test("log-json", "--log with --log-format json: errors as objects with level and msg", log_json),
    test("log-text", "--log: the error is in the file too", log_text),
    test("pid-file", "create --pid-file: the pid of the process, nothing else", pid_file),
    test("bundle-default", "without --bundle the current folder is the bundle", bundle_default),
    test(
        "config-elsewhere",
        "crun: --config names another file than the bundle's config.json, from the caller's folder",
        config_elsewhere,
    ),
    test("run-detach", "run --detach returns when the process runs", run_detach),
    test("run-keep", "run --keep keeps the container's state", run_keep),
    test("list", "list shows id, pid, status, bundle, created, owner", list),
    test("list-json", "list --format json", list_json),
    test("list-quiet", "list --quiet prints ids", list_quiet),
    test("ps", "ps shows the processes of the container", ps),
    test("ps-json", "ps --format json prints a list of pids", ps_json),
    test("spec", "spec writes a config.json that the runtime accepts", spec),
    test("spec-rootless", "spec --rootless has a user namespace with one mapping", spec_rootless),
    test("spec-safe", "hull spec and runc spec set noNewPrivileges and no inheritable capabilities", spec_safe),
    test("spec-keeps", "spec never overwrites a config.json", spec_keeps),
    test("kill-all", "kill --all signals all processes of the container", kill_all),
    test("preserve-fds", "run --preserve-fds passes descriptors from 3 on", preserve_fds),
    test(
        "listen-fds",
        "LISTEN_FDS: descriptors of socket activation reach the process with their variables",
        listen_fds,
    ),
    test("notify-socket", "NOTIFY_SOCKET: the process's READY=1 reaches the caller's socket", notify_socket),
    test("checkpoint-unknown", "checkpoint of an unknown container is an error", checkpoint_unknown),
    test("long-paths", "a bundle path longer than a socket address", long_paths),
];

fn version(context: &Context) -> Result<()> {
    let output = run(context.command().arg("--version"), None)?.ok()?;
    ensure!(output.stdout.contains("version") && output.stdout.contains("spec: 1."), "{}", output.stdout);
    let short = run(context.command().arg("-v"), None)?;
    ensure!(short.success() || context.is("crun"), "-v is not known");
    Ok(())
}

fn help(context: &Context) -> Result<()> {
    let output = run(context.command().arg("--help"), None)?.ok()?;
    let commands = [
        "checkpoint",
        "create",
        "delete",
        "events",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
    ];
    for command in commands {
        ensure!(output.stdout.contains(command), "no {command} in {}", output.stdout);
    }
    for option in ["--root", "--log", "--log-format", "--debug", "--systemd-cgroup", "--rootless"] {
        ensure!(output.stdout.contains(option), "no {option} in {}", output.stdout);
    }
    Ok(())
}

fn command_help(context: &Context, row: &str) -> Result<()> {
    let mut words = row.split(' ');
    let command = words.next().unwrap_or_default();
    let output = run(context.command().args([command, "--help"]), None)?.ok()?;
    for option in words {
        ensure!(output.stdout.contains(option), "no {option}");
    }
    Ok(())
}

fn unknown_flag(context: &Context) -> Result<()> {
    ensure!(!run(context.command().args(["list", "--no-such-flag"]), None)?.success(), "it was accepted");
    Ok(())
}

fn unknown_command(context: &Context) -> Result<()> {
    ensure!(!run(context.command().arg("no-such-command"), None)?.success(), "it was accepted");
    Ok(())
}

fn flags_after(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    bundle.runtime(&["delete", &bundle.id, "--force"])?.ok()?;
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "it is still there");
    Ok(())
}

fn root(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    ensure!(context.work.join("state").join(&bundle.id).exists(), "nothing below --root");
    let mut elsewhere = std::process::Command::new(&context.runtime);
    elsewhere.arg("--root").arg(context.work.join("elsewhere")).args(&context.options).args(["state", &bundle.id]);
    ensure!(!run(&mut elsewhere, None)?.success(), "another --root knows the container");
    Ok(())
}

pub(super) fn invalid_id(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    for id in ["../evil", "a/b", "..", ".", "", "a b", "ä"] {
        let output = bundle.runtime(&["create", "--bundle", &path, id])?;
        let accepted = output.success();
        if accepted {
            bundle.runtime(&["delete", "--force", id])?;
        }
        ensure!(!accepted, "id {id:?} was accepted");
    }
    ensure!(!context.work.join("evil").exists(), "a folder outside --root was made");
    Ok(())
}

fn failing_create(context: &Context, options: &[&str]) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("bind", "/no/such/source", "/mnt", &["bind"]).save()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let mut command = context.command();
    command.args(options).args(["create", "--bundle", &path, &bundle.id]);
    ensure!(!run(&mut command, None)?.success(), "create succeeded");
    Ok(())
}

fn log_json(context: &Context) -> Result<()> {
    let log = context.work.join(format!("log-{}", context.unique()));
    failing_create(context, &["--log", &log.to_string_lossy(), "--log-format", "json"])?;
    let text = fs::read_to_string(&log)?;
    let last = text.lines().last().context("the log is empty")?;
    let line: Value = serde_json::from_str(last).with_context(|| format!("{last:?}"))?;
    ensure!(line["level"] == "error", "{line}");
    ensure!(line["msg"].as_str().is_some_and(|text| text.contains("/no/such/source")), "{line}");
    ensure!(line["time"].is_string(), "{line}");
    Ok(())
}

fn log_text(context: &Context) -> Result<()> {
    let log = context.work.join(format!("log-{}", context.unique()));
    failing_create(context, &["--log", &log.to_string_lossy()])?;
    let text = fs::read_to_string(&log)?;
    ensure!(text.contains("/no/such/source"), "{text:?}");
    Ok(())
}

fn pid_file(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.save()?;
    let file = bundle.path.join("pid");
    let path = bundle.path.to_string_lossy().into_owned();
    bundle.runtime(&["create", "--bundle", &path, "--pid-file", &file.to_string_lossy(), &bundle.id])?.ok()?;
    ensure!(fs::read_to_string(&file)? == bundle.pid()?.to_string(), "{:?}", fs::read_to_string(&file)?);
    Ok(())
}

fn bundle_default(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("echo here").save()?;
    let output = bundle.runtime(&["run", &bundle.id])?.ok()?;
    ensure!(output.text() == "here", "{}", output.text());
    Ok(())
}

fn config_elsewhere(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    if run(context.command().arg("--version"), None)?.stdout.starts_with("runc") {
        return Err(skip("runc has no such flag"));
    }
    bundle.script("echo bundle").save()?;
    fs::create_dir(bundle.path.join("more"))?;
    bundle.script("echo elsewhere");
    fs::write(bundle.path.join("more/other.json"), serde_json::to_vec(&bundle.config)?)?;
    let path = bundle.path.to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &path, "--config", "other.json", &bundle.id]);
    let output = run(command.current_dir(bundle.path.join("more")), None)?.ok()?;
    ensure!(output.text() == "elsewhere", "{}", output.text());
    let missing = bundle.runtime(&["create", "--config", "more/none.json", &bundle.id])?;
    ensure!(!missing.success() && missing.stderr.contains("none.json"), "{}", missing.stderr);
    Ok(())
}

fn run_detach(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("sleep 60").save()?;
    bundle.runtime(&["run", "--detach", &bundle.id])?.ok()?;
    bundle.wait_for("running")
}

fn run_keep(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("true").save()?;
    bundle.runtime(&["run", "--keep", &bundle.id])?.ok()?;
    ensure!(bundle.state()?["status"] == "stopped", "{}", bundle.state()?);
    Ok(())
}

fn list(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let output = bundle.runtime(&["list"])?.ok()?;
    let header = output.stdout.lines().next().unwrap_or_default();
    for word in if context.is("crun") {
        &["NAME", "PID", "STATUS"][..]
    } else {
        &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"][..]
    } {
        ensure!(header.contains(word), "{header}");
    }
    let line = output.stdout.lines().find(|line| line.contains(&bundle.id)).context("not listed")?;
    ensure!(line.contains("created"), "{line}");
    Ok(())
}

fn list_json(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let output = bundle.runtime(&["list", "--format", "json"])?.ok()?;
    let list: Vec<Value> = serde_json::from_str(&output.stdout)?;
    let entry = list.iter().find(|entry| entry["id"] == bundle.id.as_str()).context("not listed")?;
    ensure!(entry["status"] == "created" && entry["pid"].is_u64(), "{entry}");
    Ok(())
}

fn list_quiet(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let output = bundle.runtime(&["list", "--quiet"])?.ok()?;
    ensure!(output.stdout.lines().any(|line| line == bundle.id), "{}", output.stdout);
    Ok(())
}

fn ps(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.runtime(&["ps", &bundle.id])?.ok()?;
    ensure!(output.stdout.contains("PID") && output.stdout.contains(&bundle.pid()?.to_string()), "{}", output.stdout);
    Ok(())
}

fn ps_json(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.runtime(&["ps", "--format", "json", &bundle.id])?.ok()?;
    let list: Vec<u32> = serde_json::from_str(&output.stdout)?;
    ensure!(list.contains(&bundle.pid()?), "{list:?}");
    Ok(())
}

fn spec_of(context: &Context, options: &[&str]) -> Result<Value> {
    let folder = context.work.join(format!("spec-{}", context.unique()));
    fs::create_dir(&folder)?;
    run(context.command().arg("spec").args(options).current_dir(&folder), None)?.ok()?;
    Ok(serde_json::from_slice(&fs::read(folder.join("config.json"))?)?)
}

fn spec(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let mut config = spec_of(context, &[])?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "works"]);
    config["process"]["rlimits"] = json!([]);
    config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    bundle.config = config;
    let said = bundle.output()?;
    ensure!(said == "works", "{said}");
    Ok(())
}

fn spec_rootless(context: &Context) -> Result<()> {
    let config = spec_of(context, &["--rootless"])?;
    let namespaces = config["linux"]["namespaces"].as_array().context("namespaces")?;
    ensure!(namespaces.iter().any(|one| one["type"] == "user"), "no user namespace");
    ensure!(config["linux"]["uidMappings"][0]["size"] == 1, "{}", config["linux"]["uidMappings"]);
    Ok(())
}

fn spec_safe(context: &Context) -> Result<()> {
    let config = spec_of(context, &[])?;
    ensure!(config["process"]["noNewPrivileges"] == true, "noNewPrivileges is not set");
    let inheritable = &config["process"]["capabilities"]["inheritable"];
    ensure!(inheritable.is_null() || inheritable.as_array().is_some_and(Vec::is_empty), "inheritable: {inheritable}");
    Ok(())
}

fn spec_keeps(context: &Context) -> Result<()> {
    let folder = context.work.join(format!("spec-{}", context.unique()));
    fs::create_dir(&folder)?;
    fs::write(folder.join("config.json"), "mine")?;
    let output = run(context.command().arg("spec").current_dir(&folder), None)?;
    ensure!(!output.success() && fs::read_to_string(folder.join("config.json"))? == "mine", "it was overwritten");
    Ok(())
}

fn kill_all(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    bundle.runtime(&["exec", "--detach", &bundle.id, "sleep", "300"])?.ok()?;
    bundle.runtime(&["kill", "--all", &bundle.id, "KILL"])?.ok()?;
    bundle.wait_for("stopped")
}

/// Runs the command with a file open at descriptor 3 and variables set.
fn with_descriptor(
    runtime: &std::process::Command,
    file: &std::path::Path,
    set: &str,
) -> Result<crate::command::Output> {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("file=$1; shift; {set} exec \"$@\" 3< \"$file\""), "sh"]).arg(file);
    command.arg(runtime.get_program()).args(runtime.get_args());
    run(&mut command, None)
}

fn preserve_fds(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("cat <&3").save()?;
    let file = bundle.path.join("passed");
    fs::write(&file, "through")?;
    let path = bundle.path.to_string_lossy().into_owned();
    let runtime = bundle.command(&["run", "--bundle", &path, "--preserve-fds", "1", &bundle.id]);
    let output = with_descriptor(&runtime, &file, "")?.ok()?;
    ensure!(output.text() == "through", "{}", output.text());
    Ok(())
}

fn listen_fds(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.script("echo $LISTEN_FDS $LISTEN_PID; cat <&3").save()?;
    let file = bundle.path.join("passed");
    fs::write(&file, "through")?;
    let path = bundle.path.to_string_lossy().into_owned();
    let runtime = bundle.command(&["run", "--bundle", &path, &bundle.id]);
    let output = with_descriptor(&runtime, &file, "export LISTEN_FDS=1 LISTEN_PID=$$;")?.ok()?;
    ensure!(output.text() == "1 1\nthrough", "{:?}", output.text());
    Ok(())
}

/// Runs a container with a notify socket, sends READY=1 as its process would, and returns the socket's path inside.
pub(super) fn notified(bundle: &mut crate::bundle::Bundle<'_>, script: &str) -> Result<String> {
    let folder = tempfile::Builder::new().prefix("hc").tempdir_in("/tmp")?;
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(crate::command::patience()))?;
    bundle
        .script(&format!("{script}; echo $NOTIFY_SOCKET > /told; while ! test -e /done; do usleep 20000; done"))
        .save()?;
    let bundle_path = bundle.path.to_string_lossy().into_owned();
    let mut command = bundle.command(&["run", "--bundle", &bundle_path, &bundle.id]);
    command.env("NOTIFY_SOCKET", &path);
    std::thread::scope(|scope| {
        let run = scope.spawn(move || run(&mut command, None));
        // busybox cannot send datagrams to unix sockets; through /proc this process can.
        let sent = (|| {
            let inside =
                bundle.wait_for_file(&bundle.rootfs().join("told"), |text| text.ends_with('\n'))?.trim().to_owned();
            ensure!(!inside.is_empty(), "the process has no NOTIFY_SOCKET");
            let sender = std::os::unix::net::UnixDatagram::unbound()?;
            let through = format!("/proc/{}/root{inside}", bundle.pid()?);
            sender.send_to(b"READY=1\n", &through).with_context(|| format!("cannot send to {inside}"))?;
            let mut bytes = [0; 256];
            let length = socket.recv(&mut bytes).context("the caller's socket got nothing")?;
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            ensure!(text.contains("READY=1"), "the caller's socket got {text:?}");
            Ok(inside)
        })();
        fs::write(bundle.rootfs().join("done"), "")?;
        if sent.is_err() {
            let _ = bundle.kill("KILL");
        }
        let _ = run.join();
        sent
    })
}

fn notify_socket(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    notified(&mut bundle, "true").map(drop)
}

fn checkpoint_unknown(context: &Context) -> Result<()> {
    ensure!(!run(context.command().args(["checkpoint", "no-such-container"]), None)?.success(), "it succeeded");
    Ok(())
}

fn long_paths(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let long = bundle.path.join("x".repeat(120));
    fs::create_dir(&long)?;
    fs::rename(bundle.rootfs(), long.join("rootfs"))?;
    bundle.script("echo works");
    fs::write(long.join("config.json"), serde_json::to_vec(&bundle.config)?)?;
    let output = bundle.runtime(&["run", "--bundle", &long.to_string_lossy(), &bundle.id])?.ok()?;
    ensure!(output.text() == "works", "{}", output.text());
    Ok(())
}
