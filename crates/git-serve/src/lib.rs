//! Smart HTTP over `git http-backend`: a real git server on loopback, for `make run` without a network and for tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use base64::Engine as _;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

/// Largest push.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// A request could not be served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("git cannot be run: is it installed?")]
    Spawn(#[source] std::io::Error),
    #[error("git http-backend ended early")]
    Output(#[source] std::io::Error),
    #[error("the request's body broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("git http-backend gave an answer that is not CGI (RFC 3875)")]
    NotCgi,
    #[error("git http-backend gave an answer that is not HTTP")]
    NotHttp(#[from] http::Error),
}

#[derive(Clone)]
struct Backend {
    root: Arc<PathBuf>,
    /// `git-http-backend` itself: `git http-backend` would run one more program per request.
    program: Arc<Path>,
    /// The `Authorization` header that requests must carry.
    authorization: Option<Arc<str>>,
    writable: bool,
}

/// Serves the repositories below `root` (`/owner/name.git`): to anyone, or to one user. `writable` allows pushes.
pub fn router(root: PathBuf, credentials: Option<(&str, &str)>, writable: bool) -> Router {
    let authorization = credentials.map(|(user, password)| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Arc::from(format!("Basic {encoded}"))
    });
    Router::new().fallback(serve).with_state(Backend {
        root: Arc::new(root),
        program: program().into(),
        authorization,
        writable,
    })
}

/// Where git keeps its own programs; without git any name will do, and each request reports that it is missing.
fn program() -> PathBuf {
    let output = std::process::Command::new("git").arg("--exec-path").output();
    let folder = output.map(|output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    Path::new(&folder.unwrap_or_default()).join("git-http-backend")
}

async fn serve(State(backend): State<Backend>, request: Request) -> Response<Body> {
    match cgi(&backend, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(error.to_string()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn cgi(backend: &Backend, request: Request) -> Result<Response<Body>, ServeError> {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if let Some(wanted) = &backend.authorization
        && header("authorization") != **wanted
    {
        return Ok(Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")
            .body(Body::from("credentials wanted"))?);
    }
    let mut child = tokio::process::Command::new(&*backend.program)
        .env("GIT_PROJECT_ROOT", backend.root.as_path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "http.receivepack")
        .env("GIT_CONFIG_VALUE_1", if backend.writable { "true" } else { "false" })
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_USER", "berth")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(ServeError::Spawn)?;
    let body = http_body_util::Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(ServeError::Body)?.to_bytes();
    let stdin = child.stdin.take();
    let feed = tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            // The backend may answer without reading all of it.
            let _ = stdin.write_all(&body).await;
        }
    });
    let output = child.wait_with_output().await.map_err(ServeError::Output)?;
    feed.abort();
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").ok_or(ServeError::NotCgi)?;
    let head = std::str::from_utf8(&output.stdout[..end]).map_err(|_| ServeError::NotCgi)?;
    let mut response = Response::builder();
    for line in head.lines() {
        let (name, value) = line.split_once(':').ok_or(ServeError::NotCgi)?;
        response = if name.eq_ignore_ascii_case("status") {
            response.status(value.split_whitespace().next().unwrap_or("500"))
        } else {
            response.header(name, value.trim())
        };
    }
    Ok(response.body(Body::from(output.stdout[end + 4..].to_vec()))?)
}
