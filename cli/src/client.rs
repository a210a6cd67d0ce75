//! A client of the API for the commands: through the local server's unix socket, or over TLS with a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use berth_api_types::public::Page;
use berth_http::ProblemBody;
use bytes::Bytes;
use futures::Stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;

use crate::commands::encode;
use crate::exit::{self, Exit};
use crate::home::{LOCK, STARTING};
use crate::output;

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// On this machine.
    Socket {
        /// Its unix socket, where root is the administrator.
        path: PathBuf,
        /// Of the user to be instead.
        token: Option<String>,
    },
    /// `https://host[:port]` (http only for loopback), with a token and perhaps a CA of one's own.
    Remote {
        /// The server.
        url: url::Url,
        /// `berth_pat_…`
        token: Option<String>,
        /// PEM file of the CA that signed its certificate.
        ca: Option<PathBuf>,
    },
}

/// An answer that takes longer has a reason.
const LONG: Duration = Duration::from_secs(1);

/// A server that starts.
struct Starting {
    step: String,
    seconds: u64,
}

impl Starting {
    /// The one that will serve at this socket; `None` if it serves.
    fn of(socket: &Path) -> Option<Self> {
        let run = socket.parent()?;
        let step = std::fs::read_to_string(run.join(STARTING)).ok()?;
        let begun = std::fs::metadata(run.join(LOCK)).and_then(|lock| lock.modified()).ok();
        let seconds = begun.and_then(|begun| begun.elapsed().ok()).unwrap_or_default().as_secs();
        Some(Self { step, seconds })
    }
}

/// A websocket to the server.
pub(crate) type WebSocket = WebSocketStream<Box<dyn IoStream>>;

/// Any byte stream.
pub(crate) trait IoStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> IoStream for T {}

/// The API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    target: Target,
}

impl Client {
    /// A client of this server.
    pub(crate) const fn new(target: Target) -> Self {
        Self { target }
    }

    /// Where the server is.
    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    /// Whether somebody answers.
    pub(crate) async fn reachable(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// GET, JSON out.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.json(Method::GET, path, None::<&()>, &[]).await
    }

    /// GET of a list, all of its pages; `path` has a query.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page<T> = self.get(&format!("{path}{cursor}")).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={}", encode(&next)),
                None => return Ok(items),
            }
        }
    }

    /// POST, JSON in and out, with an idempotency key of its own.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> anyhow::Result<T> {
        let key = berth_ids::uuid_v7(&berth_clock::SystemClock, &berth_clock::SystemEntropy).to_string();
        self.json(Method::POST, path, Some(body), &[("idempotency-key", &key)]).await
    }

    /// Any method, JSON in, the answer's JSON out (null when it is empty).
    pub(crate) async fn json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let response = self.send(method, path, bytes, headers).await?;
        let bytes = response.into_body().collect().await.map_err(|error| broke_off(&error))?.to_bytes();
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).with_context(|| {
            format!("the server's answer to {path} cannot be read: are server and command of the same version?")
        })
    }

    /// The answer if it is a success, otherwise its problem as an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response<Incoming>> {
        self.send_body(method, path, Full::new(Bytes::from(body)), headers).await
    }

    /// As [`Self::send`], with a body that may be streamed.
    pub(crate) async fn send_body<B>(
        &self,
        method: Method,
        path: &str,
        body: B,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response<Incoming>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.host());
        if let Some(authorization) = self.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            self.answered(sender.send_request(request.body(body)?)).await.map_err(|error| broke_off(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(problem(status, &bytes).into())
    }

    /// GET of an event stream with JSON data.
    pub(crate) async fn events<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<T>> + Unpin + Send + use<T>> {
        let response = self.send(Method::GET, path, Vec::new(), &[("accept", "text/event-stream")]).await?;
        let state = (response.into_body(), Vec::<u8>::new());
        Ok(Box::pin(futures::stream::unfold(state, |(mut body, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let Some(data) = line.strip_prefix(b"data:") else { continue };
                    let item = serde_json::from_slice(data).context("an event of the server cannot be read");
                    return Some((item, (body, buffer)));
                }
                // A stream that breaks has ended: the server went away, which the caller reports in its own words.
                let frame = body.frame().await?.ok()?;
                buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
            }
        })))
    }

    /// A websocket.
    pub(crate) async fn websocket(&self, path: &str) -> anyhow::Result<WebSocket> {
        use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _};
        let stream: Box<dyn IoStream> = Box::new(self.connect().await?);
        let mut request = format!("ws://{}{path}", self.host()).into_client_request()?;
        if let Some(authorization) = self.authorization() {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.parse()?);
        }
        match self.answered(tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err(problem(response.status(), &body).into())
            }
            Err(error) => Err(Exit::new(exit::UNREACHABLE, format!("no websocket to the server: {error}")).into()),
        }
    }

    /// Waits for an answer. This machine's server serves nobody while it starts, which takes minutes where it first builds its base image:
    /// then it is told what it is at.
    async fn answered<T>(&self, answer: impl Future<Output = T>) -> T {
        let Target::Socket { path, .. } = &self.target else { return answer.await };
        let mut answer = std::pin::pin!(answer);
        let mut told = String::new();
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep(LONG) => {}
            }
            if let Some(starting) = Starting::of(path).filter(|starting| starting.step != told) {
                output::note(format!("  the server is starting, {} s: {}", starting.seconds, starting.step));
                told = starting.step;
            }
        }
    }

    fn authorization(&self) -> Option<String> {
        let (Target::Socket { token, .. } | Target::Remote { token, .. }) = &self.target;
        token.as_ref().map(|token| format!("Bearer {token}"))
    }

    fn host(&self) -> String {
        match &self.target {
            Target::Socket { .. } => "localhost".to_owned(),
            Target::Remote { url, .. } => {
                let host = url.host_str().unwrap_or("localhost");
                url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn IoStream>> {
        match &self.target {
            Target::Socket { path, .. } => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    let hint = match error.kind() {
                        std::io::ErrorKind::PermissionDenied => {
                            "only its owner may use it: run as that user, or `berth login URL`"
                        }
                        _ => "start one with `berth server --detach`, or name a remote one with `berth login URL`",
                    };
                    Exit::new(exit::UNREACHABLE, format!("no server answers at {}: {hint}", path.display()))
                })?;
                Ok(Box::new(stream))
            }
            Target::Remote { url, ca, .. } => {
                // An IPv6 address stands in brackets in a URL only.
                let host = url.host_str().context("the server's URL has no host")?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = url.port_or_known_default().unwrap_or(443);
                let unreachable = |error: std::io::Error| {
                    Exit::new(exit::UNREACHABLE, format!("the server {url} cannot be reached: {error}"))
                };
                let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
                stream.set_nodelay(true)?;
                if url.scheme() == "http" {
                    let peer = stream.peer_addr()?;
                    if !peer.ip().is_loopback() {
                        return Err(Exit::new(
                            exit::FAILURE,
                            format!("{url} is not encrypted: a token must not go over it; use https"),
                        )
                        .into());
                    }
                    return Ok(Box::new(stream));
                }
                let config = tls(ca.as_deref())?;
                let name = rustls_pki_types::ServerName::try_from(host)?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
                    // What `openssl req -x509` makes unless told otherwise.
                    if error.to_string().contains("CaUsedAsEndEntity") {
                        let text = format!("the certificate of {url} is that of a CA, which may sign certificates and be none of a server: make it with `basicConstraints=CA:FALSE` (docs/operations.md)");
                        return Exit::new(exit::UNREACHABLE, text);
                    }
                    unreachable(error)
                })?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn tls(ca: Option<&std::path::Path>) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    use rustls_pki_types::pem::PemObject as _;
    berth_http::install_crypto();
    let mut roots = rustls::RootCertStore::empty();
    let system = std::path::PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    let file = ca.map_or(system, std::path::Path::to_owned);
    let certificates = rustls_pki_types::CertificateDer::pem_file_iter(&file).with_context(|| {
        format!("cannot read the CA certificates in {}: give a PEM file with --ca-cert", file.display())
    })?;
    for certificate in certificates {
        // A certificate of the system's store that rustls rejects is one that no server should use.
        let _ = roots.add(certificate?);
    }
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// The connection ended in the middle of an answer.
pub(crate) fn broke_off(error: &hyper::Error) -> Exit {
    let told = format!(
        "the connection to the server broke off ({error}): try again (`berth server status` says whether it runs)"
    );
    Exit::new(exit::UNREACHABLE, told)
}

fn problem(status: StatusCode, body: &[u8]) -> Exit {
    let code = match status.as_u16() {
        401 | 403 => exit::NOT_ALLOWED,
        404 => exit::NOT_FOUND,
        409 | 412 => exit::CONFLICT,
        502..=504 => exit::UNREACHABLE,
        _ => exit::FAILURE,
    };
    match serde_json::from_slice::<ProblemBody>(body) {
        Ok(problem) => {
            let mut text = problem.detail.clone();
            // A problem about one field often says everything already.
            for error in problem.errors.into_iter().filter(|error| !problem.detail.contains(&error.detail)) {
                text.push_str(&format!("\n  {}: {}", error.pointer, error.detail));
            }
            Exit::new(code, text).with_code(problem.code)
        }
        Err(_) => Exit::new(code, format!("the server answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once() {
        let told = |detail: &str| {
            let errors = r#"[{"pointer":"/name","detail":"use letters"}]"#;
            let body = format!(
                r#"{{"type":"about:blank","title":"","status":422,"code":"c","detail":"{detail}","errors":{errors}}}"#
            );
            problem(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes()).to_string()
        };
        assert_eq!(told("the name \\\"ü\\\": use letters"), "the name \"ü\": use letters");
        assert_eq!(told("two things are wrong"), "two things are wrong\n  /name: use letters");
    }
}
