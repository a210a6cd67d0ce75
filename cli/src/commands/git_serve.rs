//! `berth internal git-serve`: repositories over smart HTTP on loopback, so that `make run` needs no network.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use berth_http::{Listener, ServeOptions, serve};
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

use crate::args::Global;
use crate::home::Home;
use crate::output;

/// Serves, or starts or stops the one in the background.
pub(crate) fn run(
    global: &Global,
    listen: &str,
    repositories: &[String],
    detach: bool,
    stop: bool,
) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    let address: SocketAddr =
        listen.parse().with_context(|| format!("{listen:?} is not an address: write 127.0.0.1:7171"))?;
    if !address.ip().is_loopback() {
        bail!("{address} is not a loopback address: this server knows no users");
    }
    let pid_file = home.run().join("git-serve.pid");
    if stop {
        if let Some(pid) = running(&pid_file) {
            kill_process(pid, Signal::TERM).context("the git server")?;
        }
        return Ok(());
    }
    home.prepare()?;
    let root = home.path().join("git");
    for repository in repositories {
        mirror(&root, repository)?;
    }
    if detach {
        return background(&home, listen, &pid_file);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        std::fs::write(&pid_file, std::process::id().to_string())?;
        output::write(b"ready\n")?;
        let shutdown = CancellationToken::new();
        let router = berth_git_serve::router(root, None, true);
        let server = tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), shutdown.clone()));
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        shutdown.cancel();
        server.await.context("the git server")
    })
}

fn background(home: &Home, listen: &str, pid_file: &Path) -> anyhow::Result<()> {
    if running(pid_file).is_some() && std::net::TcpStream::connect(listen).is_ok() {
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["internal", "git-serve", "--listen", listen, "--home"])
        .arg(home.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!(
            "the git server did not start: is {listen} taken by another program? choose another with GIT_LISTEN=127.0.0.1:PORT"
        );
    }
    Ok(())
}

fn running(pid_file: &Path) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_ours = command.split(|byte| *byte == 0).any(|word| word == b"git-serve");
    is_ours.then(|| Pid::from_raw(pid))?
}

/// Copies the branches and tags of a folder's repository into a bare one that is served.
fn mirror(root: &Path, repository: &str) -> anyhow::Result<()> {
    let (name, folder) =
        repository.split_once('=').with_context(|| format!("{repository:?} is not owner/name=FOLDER"))?;
    let valid =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if name.split('/').count() != 2 || !name.split('/').all(valid) {
        bail!("{name:?} is not owner/name");
    }
    let bare: PathBuf = root.join(format!("{name}.git"));
    let source = std::path::absolute(folder)?;
    if !bare.join("HEAD").exists() {
        git(root, &["init", "--quiet", "--bare", "--initial-branch=main", &bare.display().to_string()])?;
    }
    let head = git(&source, &["rev-parse", "--verify", "HEAD"]).with_context(|| format!("{folder} has no commits"))?;
    // The whole name: the short one of a branch that shares it with a tag is `heads/main`.
    let branch = git(&source, &["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_else(|_| "refs/heads/main".to_owned());
    git(
        &bare,
        &[
            "fetch",
            "--quiet",
            "--force",
            &source.display().to_string(),
            "refs/heads/*:refs/heads/*",
            "refs/tags/*:refs/tags/*",
        ],
    )?;
    // The commit of a detached checkout (as CI makes it) is on no branch.
    git(&bare, &["fetch", "--quiet", "--force", &source.display().to_string(), &format!("{head}:{branch}")])?;
    git(&bare, &["symbolic-ref", "HEAD", &branch])?;
    Ok(())
}

fn git(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(folder)
        .output()
        .context("git is not installed")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
