//! Every command and flag of runc 1.5, one by one: a caller that knows runc must not notice another runtime.
//!
//! The commands are given an id, or a bundle, that does not exist: the answer must be about that, not about the flag.

use anyhow::{Context as _, Result, ensure};

use crate::command::{Output, run};
use crate::context::Context;
use crate::suite::{Test, case, test};

pub(crate) const TESTS: &[Test] = &[
    case("global", "runc's flags before the command", each_global, ""),
    case("checkpoint", "runc checkpoint: every flag, before and after the id", each, "checkpoint"),
    case("create", "runc create: every flag, before and after the id", each, "create"),
    case("delete", "runc delete: every flag, before and after the id", each, "delete"),
    case("events", "runc events: every flag, before and after the id", each, "events"),
    case("exec", "runc exec: every flag before the id", each, "exec"),
    case("kill", "runc kill: --all, before and after the id", each, "kill"),
    case("list", "runc list: every flag", each, "list"),
    case("pause", "runc pause", each, "pause"),
    case("ps", "runc ps: every flag before the id", each, "ps"),
    case("restore", "runc restore: every flag, before and after the id", each, "restore"),
    case("resume", "runc resume", each, "resume"),
    case("run", "runc run: every flag, before and after the id", each, "run"),
    case("start", "runc start", each, "start"),
    case("state", "runc state", each, "state"),
    case("update", "runc update: every flag, before and after the id", each, "update"),
    test("values", "runc update and events: values in every form, on a container that runs", values),
    test("wrong-values", "values that runc refuses", wrong_values),
    test("unknown-id", "every command on an unknown id: `container does not exist`, status 1, exec 255", unknown_id),
    test("unknown-command", "an unknown command: status 3, as runc's", unknown_command),
    test("usage", "wrong flags and numbers of arguments: status 1, for exec too", usage),
];

/// A command's flags: name, other name, value.
struct Command {
    name: &'static str,
    flags: &'static [(&'static str, &'static str, &'static str)],
    /// Whether what follows the id belongs to another program.
    trailing: bool,
}

const BUNDLE: &str = "/nonexistent/bundle";

const CREATE: &[(&str, &str, &str)] = &[
    ("bundle", "b", BUNDLE),
    ("console-socket", "", "/nonexistent/console"),
    ("pidfd-socket", "", "/nonexistent/pidfd"),
    ("pid-file", "", "/nonexistent/pid"),
    ("no-pivot", "", ""),
    ("no-new-keyring", "", ""),
    ("preserve-fds", "", "0"),
];

const COMMANDS: &[Command] = &[
    Command {
        name: "checkpoint",
        flags: &[
            ("image-path", "", "image"),
            ("work-path", "", "work"),
            ("parent-path", "", "parent"),
            ("leave-running", "", ""),
            ("tcp-established", "", ""),
            ("tcp-skip-in-flight", "", ""),
            ("link-remap", "", ""),
            ("ext-unix-sk", "", ""),
            ("shell-job", "", ""),
            ("lazy-pages", "", ""),
            ("status-fd", "", "-1"),
            ("page-server", "", ""),
            ("file-locks", "", ""),
            ("pre-dump", "", ""),
            ("manage-cgroups-mode", "", "soft"),
            ("empty-ns", "", "network"),
            ("auto-dedup", "", ""),
        ],
        trailing: false,
    },
    Command { name: "create", flags: CREATE, trailing: false },
    Command { name: "delete", flags: &[], trailing: false },
    Command { name: "events", flags: &[("interval", "", "5s"), ("stats", "", "")], trailing: false },
    Command {
        name: "exec",
        flags: &[
            ("console-socket", "", "/nonexistent/console"),
            ("pidfd-socket", "", "/nonexistent/pidfd"),
            ("cwd", "", "/"),
            ("env", "e", "A=1"),
            ("tty", "t", ""),
            ("user", "u", "0:0"),
            ("additional-gids", "g", "5"),
            ("detach", "d", ""),
            ("pid-file", "", "/nonexistent/pid"),
            ("process-label", "", "label"),
            ("apparmor", "", "profile"),
            ("no-new-privs", "", ""),
            ("cap", "c", "CAP_KILL"),
            ("preserve-fds", "", "0"),
            ("cgroup", "", "sub"),
            ("ignore-paused", "", ""),
        ],
        trailing: true,
    },
    Command { name: "kill", flags: &[("all", "a", "")], trailing: false },
    Command { name: "list", flags: &[("format", "f", "json"), ("quiet", "q", "")], trailing: false },
    Command { name: "pause", flags: &[], trailing: false },
    Command { name: "ps", flags: &[("format", "f", "json")], trailing: true },
    Command {
        name: "restore",
        flags: &[
            ("console-socket", "", "/nonexistent/console"),
            ("image-path", "", "image"),
            ("work-path", "", "work"),
            ("tcp-established", "", ""),
            ("ext-unix-sk", "", ""),
            ("shell-job", "", ""),
            ("file-locks", "", ""),
            ("manage-cgroups-mode", "", "soft"),
            ("bundle", "b", BUNDLE),
            ("detach", "d", ""),
            ("pid-file", "", "/nonexistent/pid"),
            ("no-subreaper", "", ""),
            ("no-pivot", "", ""),
            ("empty-ns", "", "network"),
            ("auto-dedup", "", ""),
            ("lazy-pages", "", ""),
            ("lsm-profile", "", "apparmor:profile"),
            ("lsm-mount-context", "", "context"),
        ],
        trailing: false,
    },
    Command { name: "resume", flags: &[], trailing: false },
    Command {
        name: "run",
        flags: &[
            ("bundle", "b", BUNDLE),
            ("console-socket", "", "/nonexistent/console"),
            ("pidfd-socket", "", "/nonexistent/pidfd"),
            ("detach", "d", ""),
            ("keep", "", ""),
            ("pid-file", "", "/nonexistent/pid"),
            ("no-subreaper", "", ""),
            ("no-pivot", "", ""),
            ("no-new-keyring", "", ""),
            ("preserve-fds", "", "0"),
        ],
        trailing: false,
    },
    Command { name: "start", flags: &[], trailing: false },
    Command { name: "state", flags: &[], trailing: false },
    Command {
        name: "update",
        flags: &[
            ("blkio-weight", "", "500"),
            ("cpu-period", "", "100000"),
            ("cpu-quota", "", "50000"),
            ("cpu-burst", "", "0"),
            ("cpu-share", "", "512"),
            ("cpu-rt-period", "", "1000000"),
            ("cpu-rt-runtime", "", "0"),
            ("cpuset-cpus", "", "0"),
            ("cpuset-mems", "", "0"),
            ("memory", "", "64M"),
            ("cpu-idle", "", "0"),
            ("memory-reservation", "", "32M"),
            ("memory-swap", "", "-1"),
            ("pids-limit", "", "100"),
            ("l3-cache-schema", "", ""),
            ("mem-bw-schema", "", ""),
        ],
        trailing: false,
    },
];

/// The ways to write a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Long,
    LongWithEquals,
    OneDash,
    Short,
}

fn words(command: &Command, form: Form) -> Vec<String> {
    let mut words = Vec::new();
    for (name, short, value) in command.flags {
        let flag = match form {
            Form::Short if !short.is_empty() => format!("-{short}"),
            Form::OneDash => format!("-{name}"),
            _ => format!("--{name}"),
        };
        let switch = value.is_empty() && !matches!(*name, "page-server" | "l3-cache-schema" | "mem-bw-schema");
        match form {
            _ if switch => words.push(flag),
            Form::LongWithEquals => words.push(format!("{flag}={value}")),
            _ => words.extend([flag, (*value).to_owned()]),
        }
    }
    words
}

fn each(context: &Context, row: &str) -> Result<()> {
    for command in COMMANDS.iter().filter(|command| command.name == row) {
        for form in [Form::Long, Form::LongWithEquals, Form::OneDash, Form::Short] {
            let flags = words(command, form);
            for after in [false, true] {
                if after && (command.trailing || form == Form::OneDash) {
                    continue;
                }
                let mut line = vec![command.name.to_owned()];
                let id = (command.name != "list").then(|| "no-such-container".to_owned());
                if after {
                    line.extend(id);
                    line.extend(flags.iter().cloned());
                } else {
                    line.extend(flags.iter().cloned());
                    line.extend(id);
                }
                if command.name == "exec" {
                    line.push("true".to_owned());
                }
                answers(command, &line, &run(context.command().args(&line), None)?)?;
            }
        }
    }
    Ok(())
}

/// The answer is about what does not exist.
fn answers(command: &Command, line: &[String], output: &Output) -> Result<()> {
    let said = format!("{}{}", output.stdout, output.stderr);
    let fine = match command.name {
        // There may be no state folder yet, which runc refuses to list.
        "list" => output.success() || said.contains("no such file or directory"),
        "create" | "run" | "restore" => said.contains("no such file or directory") && said.contains("nonexistent"),
        _ => said.contains("does not exist"),
    };
    ensure!(fine, "{}: {said}", line.join(" "));
    Ok(())
}

fn each_global(context: &Context, _row: &str) -> Result<()> {
    let log = context.work.join("flags.log").to_string_lossy().into_owned();
    for form in ["--", "-"] {
        let line: Vec<String> =
            ["debug", "log", &log, "log-format", "json", "systemd-cgroup=false", "rootless", "auto"]
                .iter()
                .map(|word| {
                    let value = word.starts_with('/') || matches!(*word, "json" | "auto");
                    if value { (*word).to_owned() } else { format!("{form}{word}") }
                })
                .collect();
        let mut command = context.command();
        let output = run(command.args(line).args(["state", "no-such-container"]), None)?;
        ensure!(output.code() == 1, "status {}", output.code());
        ensure!(output.stderr.contains("does not exist"), "{}", output.stderr);
    }
    Ok(())
}

fn values(context: &Context) -> Result<()> {
    context.needs("memory")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", serde_json::json!({"limit": 512 << 20}));
    bundle.started()?;
    let id = bundle.id.clone();
    for (flag, value) in [
        ("--memory", "64M"),
        ("--memory", ""),
        ("--cpu-period", ""),
        ("--cpu-share", ""),
        ("--kernel-memory", "50M"),
        ("--memory", "0.25GiB"),
    ] {
        bundle.runtime(&["update", flag, value, &id])?.ok().with_context(|| format!("update {flag} {value:?}"))?;
    }
    let limit = bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(limit == (256u64 << 20).to_string(), "the limit is {limit}");
    for interval in ["1.5s", "500us", "1m0.5s"] {
        bundle
            .runtime(&["events", "--stats", "--interval", interval, &id])?
            .ok()
            .with_context(|| format!("events --interval {interval}"))?;
    }
    // CRIU may not be able to, or not be there; but that is not about the flag.
    let images = bundle.path.join("images").to_string_lossy().into_owned();
    let saved = bundle.runtime(&["checkpoint", "--status-fd", "-1", "--image-path", &images, &id])?;
    ensure!(!saved.stderr.contains("status-fd"), "checkpoint --status-fd -1: {}", saved.stderr);
    Ok(())
}

fn wrong_values(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let id = bundle.id.clone();
    let lines: &[&[&str]] = &[
        &["update", "--memory", "1.5.5G", &id],
        &["update", "--memory", "much", &id],
        &["update", "--cpu-period", "x", &id],
        &["events", "--stats", "--interval", "0s", &id],
        &["events", "--stats", "--interval", "5", &id],
        &["--rootless", "perhaps", "state", &id],
    ];
    for line in lines {
        ensure!(!bundle.runtime(line)?.success(), "{}: accepted", line.join(" "));
    }
    Ok(())
}

fn unknown_id(context: &Context) -> Result<()> {
    let id = "no-such-container";
    for command in
        ["checkpoint", "delete", "events", "exec", "kill", "pause", "ps", "resume", "start", "state", "update"]
    {
        let mut line = vec![command, id];
        line.extend((command == "exec").then_some("true"));
        let log = context.work.join(format!("unknown-{command}.log"));
        let mut program = context.command();
        program.arg("--log").arg(&log).args(["--log-format", "json"]);
        let output = run(program.args(&line), None)?;
        let wanted = if command == "exec" { 255 } else { 1 };
        ensure!(output.code() == wanted, "{command}: status {} instead of {wanted}", output.code());
        // What containerd, CRI-O and Podman look for.
        let text = std::fs::read_to_string(&log)?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let error = lines.rfind(|line| line["level"] == "error").unwrap_or_default();
        ensure!(error["msg"].as_str().is_some_and(|msg| msg.contains("container does not exist")), "{command}: {text}");
        ensure!(error["time"].as_str().is_some_and(|time| time.contains('T')), "{command}: {text}");
    }
    Ok(())
}

fn unknown_command(context: &Context) -> Result<()> {
    let output = run(context.command().arg("no-such-command"), None)?;
    ensure!(output.code() == 3, "status {}", output.code());
    ensure!(output.stderr.contains("No help topic for 'no-such-command'"), "{}", output.stderr);
    Ok(())
}

fn usage(context: &Context) -> Result<()> {
    for line in [
        &["create"][..],
        &["create", "--no-such-flag", "id"],
        &["exec"],
        &["exec", "--no-such-flag", "id", "true"],
        &["kill"],
        &["state", "a", "b"],
        &["features", "more"],
        &["list", "--format", "yaml"],
        &["--log-format", "xml", "list"],
    ] {
        let output = run(context.command().args(line), None)?;
        ensure!(output.code() == 1, "{line:?}: status {}", output.code());
    }
    Ok(())
}
