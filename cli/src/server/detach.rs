//! A server in the background: starting it, asking for its status, stopping it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use berth_api_types::public::ServerStatus;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{Global, Output, Server};
use crate::client::{Client, Target};
use crate::exit::{self, Exit};
use crate::home::Home;
use crate::output;

/// The environment variable that tells a detached server that whoever started it reads its standard output.
pub(crate) const READY_VARIABLE: &str = "BERTH_READY_STDOUT";
/// The line by which it says that it serves.
pub(crate) const READY_LINE: &str = "ready";

/// The options of this command line, for the server in the background.
pub(crate) fn pass_on(server: &Server) -> anyhow::Result<Vec<String>> {
    let mut args = Vec::new();
    let files = [("--tls-cert", &server.tls_cert), ("--tls-key", &server.tls_key), ("--config", &server.config)];
    for (option, file) in files {
        if let Some(file) = file {
            args.push(option.to_owned());
            args.push(std::path::absolute(file)?.display().to_string());
        }
    }
    if let Some(listen) = &server.listen {
        args.extend(["--listen".to_owned(), listen.clone()]);
    }
    Ok(args)
}

/// `berth server --detach`.
pub(crate) fn run(global: &Global, args: &[String]) -> anyhow::Result<()> {
    start(global, args)?;
    match global.output {
        Output::Json => status(global),
        Output::Text => Ok(()),
    }
}

/// Refuses options that the server that runs was not started with: they would have no effect.
fn refuse_other_options(pid: u32, args: &[String]) -> anyhow::Result<()> {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&str> = command.split('\0').collect();
    let Some(other) = args.chunks(2).find(|option| !words.windows(2).any(|pair| pair == *option)) else {
        return Ok(());
    };
    let text = format!(
        "the server that runs (pid {pid}) was started without `{}`: stop it with `berth server stop`, workspaces go on running, and start it again",
        other.join(" ")
    );
    Err(Exit::new(exit::CONFLICT, text).into())
}

/// Starts a server in the background, unless one runs; returns once it serves.
pub(crate) fn start(global: &Global, args: &[String]) -> anyhow::Result<()> {
    super::need_root()?;
    let home = Home::find(global.home.as_deref())?;
    home.prepare()?;
    if let Some(status) = ask(&home)? {
        let allowed = std::fs::read_to_string(home.private_hosts()).unwrap_or_default();
        let missing: Vec<String> = super::config::private_hosts_of_environment()
            .into_iter()
            .filter(|host| !allowed.lines().any(|line| line == host))
            .collect();
        if !missing.is_empty() {
            let text = format!(
                "the server that runs (pid {}) was started without BERTH_ALLOW_PRIVATE_HOSTS={}: stop it with `berth server stop`, workspaces go on running, and start it again",
                status.pid,
                missing.join(",")
            );
            return Err(Exit::new(exit::CONFLICT, text).into());
        }
        refuse_other_options(status.pid, args)?;
        output::note(format!("the server runs already (pid {})", status.pid));
        return Ok(());
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(home.log()).context("the server's log")?;
    let before = usize::try_from(log.metadata()?.len()).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("server")
        .arg("--home")
        .arg(home.path())
        .args(args)
        .env(READY_VARIABLE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // A process group of its own: the terminal's Ctrl-C must not reach it.
        .process_group(0);
    let mut child = command.spawn().context("the server could not be started")?;
    let stdout = child.stdout.take().context("the server's output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if line == READY_LINE {
            output::note(format!("server ready (pid {}, log {})", child.id(), home.log().display()));
            return Ok(());
        }
        output::note(format!("  {line}"));
    }
    let status = child.wait()?;
    let log = std::fs::read(home.log()).unwrap_or_default();
    // What earlier servers wrote says nothing about this one.
    let log = String::from_utf8_lossy(log.get(before..).unwrap_or(&log));
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
    Err(Exit::new(
        exit::FAILURE,
        format!("the server did not start ({status}); the end of {}:\n  {tail}", home.log().display()),
    )
    .into())
}

/// The status of this machine's server; `None` if none runs.
pub(super) fn ask(home: &Home) -> anyhow::Result<Option<ServerStatus>> {
    let client = Client::new(Target::Socket { path: home.socket(), token: None });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match client.get::<ServerStatus>("/api/v1/server").await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.downcast_ref::<Exit>().is_some_and(|exit| exit.status == exit::UNREACHABLE) => Ok(None),
            Err(error) => Err(error),
        }
    })
}

/// `berth server status`.
pub(crate) fn status(global: &Global) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    match ask(&home)? {
        Some(status) => output::result(global.output, &status, |status| {
            format!("running: pid {}, version {}, since {}", status.pid, status.version, status.started_at.to_rfc3339())
        }),
        None => Err(Exit::new(
            exit::UNREACHABLE,
            format!("no server runs on {}: start one with `berth server --detach`", home.path().display()),
        )
        .into()),
    }
}

/// `berth server stop`: SIGTERM, then waits for its end.
pub(crate) fn stop(global: &Global) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    // Not asked: one that starts, or stops already, answers nobody.
    let Some(pid) = super::lifecycle::lock_holder(&home) else { return stopped(global, None, "no server runs") };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the server's pid")?;
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return stopped(global, Some(pid), "the server stopped by itself"),
        Err(error) => return Err(error).context("the server's process"),
    };
    match pidfd_send_signal(&pidfd, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("the server (pid {pid}) cannot be told to stop: are you its user?"));
        }
    }
    let patience = rustix::event::Timespec::try_from(Duration::from_secs(60))?;
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))?;
    if ended == 0 {
        return Err(Exit::new(
            exit::FAILURE,
            format!("the server (pid {pid}) still runs after 60 s: see {}", home.log().display()),
        )
        .into());
    }
    stopped(global, Some(pid), "the server stopped; workspaces go on running")
}

fn stopped(global: &Global, pid: Option<u32>, text: &str) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::result(Output::Json, &serde_json::json!({ "stopped": pid }), |_| String::new()),
        Output::Text => {
            output::note(text);
            Ok(())
        }
    }
}
