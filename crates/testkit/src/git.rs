//! A real git server: smart HTTP on loopback through `git http-backend`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use berth_http::{Listener, ServeOptions, serve};
use tokio_util::sync::CancellationToken;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A git server on a loopback port; `http://127.0.0.1:PORT/owner/name.git`.
#[derive(Debug)]
pub struct GitServer {
    root: tempfile::TempDir,
    address: SocketAddr,
    shutdown: CancellationToken,
}

/// A repository of the server.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its URL.
    pub url: String,
    /// The bare repository on disk.
    pub path: PathBuf,
}

impl GitServer {
    /// A server that serves anyone.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(LOOPBACK, None).await
    }

    /// A server for anyone who can reach this address of the machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_at(address: IpAddr) -> anyhow::Result<Self> {
        Self::start_with(address, None).await
    }

    /// A server that requires this user and password for everything.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_private(user: &str, password: &str) -> anyhow::Result<Self> {
        Self::start_with(LOOPBACK, Some((user, password))).await
    }

    async fn start_with(address: IpAddr, credentials: Option<(&str, &str)>) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("berth-git-").tempdir()?;
        let listener = tokio::net::TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let router = berth_git_serve::router(root.path().to_owned(), credentials, true);
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), shutdown.clone()));
        Ok(Self { root, address, shutdown })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes `owner/name` with one commit of these files on `main`; without files it is empty.
    ///
    /// # Errors
    /// When git fails.
    pub fn repository(&self, owner: &str, name: &str, files: &[(&str, &str)]) -> anyhow::Result<Repository> {
        let path = self.root.path().join(owner).join(format!("{name}.git"));
        std::fs::create_dir_all(&path)?;
        git(&path, &["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
        for (key, value) in [
            ("http.receivepack", "true"),
            ("uploadpack.allowFilter", "true"),
            ("uploadpack.allowAnySHA1InWant", "true"),
        ] {
            git(&path, &["config", key, value])?;
        }
        let repository = Repository { url: format!("http://{}/{owner}/{name}.git", self.address), path };
        if !files.is_empty() {
            repository.commit("main", "first commit", files)?;
        }
        Ok(repository)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Repository {
    /// Adds a commit with these files to a branch (made from `main` if it is new); returns the commit's id.
    ///
    /// # Errors
    /// When git fails.
    pub fn commit(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> anyhow::Result<String> {
        let work = tempfile::tempdir()?;
        let folder = work.path();
        let bare = self.path.to_string_lossy().into_owned();
        git(folder, &["clone", "--quiet", &bare, "."])?;
        if git(folder, &["checkout", "--quiet", branch]).is_err() {
            git(folder, &["checkout", "--quiet", "-B", branch])?;
        }
        for (path, text) in files {
            let file = folder.join(path);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(file, text)?;
        }
        git(folder, &["add", "--all"])?;
        git(folder, &["commit", "--quiet", "--allow-empty", "-m", message])?;
        git(folder, &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")])?;
        git(folder, &["rev-parse", "HEAD"])
    }

    /// Runs git in the bare repository; returns its output, trimmed.
    ///
    /// # Errors
    /// When git fails.
    pub fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        git(&self.path, args)
    }
}

fn git(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("git")
        .args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "safe.directory=*",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .output()
        .context("git is not installed")?;
    if !output.status.success() {
        bail!("git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
