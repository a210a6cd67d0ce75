//! The server that is measured, and a small repository on loopback.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail};
use berth_http::{Listener, ServeOptions, serve};
use tokio_util::sync::CancellationToken;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Folder of the binaries, absolute.
    pub bin: PathBuf,
    /// Its home.
    pub home: PathBuf,
    /// The repository's URL.
    pub repository: String,
    _git: tempfile::TempDir,
    _stop_git: tokio_util::sync::DropGuard,
}

impl Server {
    /// Builds the base image if it is missing and needed, serves a repository of 50 files, starts the server.
    pub(crate) async fn start(bin: &Path, home: &Path, with_image: bool) -> anyhow::Result<Self> {
        let bin = std::fs::canonicalize(bin).with_context(|| format!("{}: run `make build`", bin.display()))?;
        let git = tempfile::tempdir()?;
        repository(git.path())?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let router = berth_git_serve::router(git.path().to_owned(), None, false);
        tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), stop.clone()));
        let this = Self {
            bin,
            home: home.to_owned(),
            repository: format!("http://{address}/bench/small.git"),
            _git: git,
            _stop_git: stop.drop_guard(),
        };
        tokio::task::block_in_place(|| {
            if with_image {
                this.check(&["image", "build-base"])?;
            }
            // A server of an earlier run may allow another repository's port.
            this.check(&["server", "stop"])?;
            let status =
                this.berth(&["server", "--detach"]).env("BERTH_ALLOW_PRIVATE_HOSTS", address.to_string()).status()?;
            if !status.success() {
                bail!("the server did not start");
            }
            this.delete_all()
        })?;
        Ok(this)
    }

    /// `berth …` on this server.
    pub(crate) fn berth(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("berth"));
        command
            .args(args)
            .env("BERTH_HOME", &self.home)
            .env("BERTH_SERVER__LISTEN", "127.0.0.1:7270")
            .env("BERTH_KUBERNETES__LISTEN", "127.0.0.1:7643")
            // One token sends all requests here; the rate limit is not what is measured.
            .env("BERTH_API__REQUESTS_PER_SECOND", "1000000")
            .env("BERTH_API__REQUEST_BURST", "1000000")
            .env_remove("BERTH_TOKEN");
        command
    }

    /// Runs `berth …`, which must succeed.
    pub(crate) fn check(&self, args: &[&str]) -> anyhow::Result<Output> {
        let output = self.berth(args).output()?;
        if !output.status.success() {
            bail!("berth {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output)
    }

    /// Runs `berth … --output json`.
    pub(crate) fn json(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        Ok(serde_json::from_slice(&self.check(&args)?.stdout)?)
    }

    /// Deletes every workspace.
    pub(crate) fn delete_all(&self) -> anyhow::Result<()> {
        let list = self.json(&["list"])?;
        for workspace in list.as_array().into_iter().flatten() {
            self.check(&["delete", workspace["id"].as_str().unwrap_or_default()])?;
        }
        Ok(())
    }

    /// Process id of the server.
    pub(crate) fn pid(&self) -> anyhow::Result<u64> {
        self.json(&["server", "status"])?["pid"].as_u64().context("the server's pid")
    }

    /// Stops it.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.check(&["server", "stop"]).map(drop)
    }

    /// Removes its database, with the same result as deleting ten thousand workspaces one by one; the server must be stopped.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        let data = self.home.join("postgres");
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())
    }
}

fn repository(root: &Path) -> anyhow::Result<()> {
    let work = root.join("work");
    std::fs::create_dir_all(work.join("src"))?;
    for number in 0..50 {
        std::fs::write(work.join(format!("src/file{number}.txt")), format!("line of file {number}\n").repeat(20))?;
    }
    let git = |args: &[&str]| -> anyhow::Result<()> {
        let output = Command::new("git")
            .args(["-c", "user.name=Bench", "-c", "user.email=bench@example.com"])
            .args(args)
            .current_dir(&work)
            .output()?;
        if !output.status.success() {
            bail!("git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "-m", "fifty files"])?;
    git(&["clone", "--quiet", "--bare", ".", "../bench/small.git"])
}
