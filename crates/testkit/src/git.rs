//! A real git server: smart HTTP on loopback through `git http-backend`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use base64::Engine as _;
use berth_http::{Listener, ServeOptions, serve};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

/// A git server on a loopback port; `http://127.0.0.1:PORT/owner/name.git`.
#[derive(Debug)]
pub struct GitServer {
    root: tempfile::TempDir,
    address: SocketAddr,
    shutdown: CancellationToken,
}

#[derive(Clone)]
struct Backend {
    root: Arc<PathBuf>,
    /// `Basic …` header that requests must carry.
    authorization: Option<Arc<str>>,
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
        Self::start_with(None).await
    }

    /// A server that wants this user and password for everything.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_private(user: &str, password: &str) -> anyhow::Result<Self> {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self::start_with(Some(format!("Basic {encoded}").into())).await
    }

    async fn start_with(authorization: Option<Arc<str>>) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("berth-git-").tempdir()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let backend = Backend { root: Arc::new(root.path().to_owned()), authorization };
        let router = Router::new().fallback(backend_request).with_state(backend);
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
        for (key, value) in [("http.receivepack", "true"), ("uploadpack.allowFilter", "true"), ("uploadpack.allowAnySHA1InWant", "true")] {
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
    /// Adds a commit with these files to a branch (made from `main` when it is new); the commit's id.
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

    /// Runs git in the bare repository; its output, trimmed.
    ///
    /// # Errors
    /// When git fails.
    pub fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        git(&self.path, args)
    }
}

fn git(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "safe.directory=*", "-c", "protocol.file.allow=always"])
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

async fn backend_request(State(backend): State<Backend>, request: Request) -> Response<Body> {
    match cgi(&backend, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("{error:#}")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn cgi(backend: &Backend, request: Request) -> anyhow::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let header = |name: header::HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    if let Some(wanted) = &backend.authorization
        && header(header::AUTHORIZATION) != **wanted
    {
        return Ok(Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")
            .body(Body::from("credentials wanted"))?);
    }
    let mut command = tokio::process::Command::new("git");
    command
        .arg("-c")
        .arg("safe.directory=*")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", backend.root.as_path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", header(header::CONTENT_ENCODING))
        .env("REMOTE_USER", "test")
        .env("REMOTE_ADDR", "127.0.0.1");
    if let Some(protocol) = parts.headers.get("git-protocol").and_then(|value| value.to_str().ok()) {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let body = body.collect().await?.to_bytes();
    let mut stdin = child.stdin.take().context("stdin")?;
    let feed = tokio::spawn(async move {
        // The backend may answer without reading all of it.
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await?;
    feed.await?;
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").context("http-backend gave no headers")?;
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output.stdout[..end])?.lines() {
        let (name, value) = line.split_once(':').context("a header line")?;
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split_whitespace().next().unwrap_or("500"));
        } else {
            response = response.header(name, value.trim());
        }
    }
    Ok(response.body(Body::from(output.stdout[end + 4..].to_vec()))?)
}
