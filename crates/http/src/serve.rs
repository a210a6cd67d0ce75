//! The accept loop: bounded time for request heads, bounded connections, drained at the end. TCP, TLS and unix sockets alike.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::Problem;
use crate::drain::Drain;

/// Who is at the other end of a unix socket, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Where connections come from.
pub enum Listener {
    /// Plain TCP: loopback, or behind a proxy.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls(TcpListener, Arc<rustls::ServerConfig>),
    /// A unix socket; requests carry [`PeerCredentials`] as an extension.
    Unix(UnixListener),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Tls(..) => "Tls",
            Self::Unix(_) => "Unix",
        })
    }
}

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// How long a client may take to send a request's head, and to finish a TLS handshake.
    pub header_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// How long running requests may take after the shutdown began.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(15), max_connections: 20_000, drain: Duration::from_secs(3) }
    }
}

/// Serves `router` on `listener` until `shutdown`, then lets running requests end within `options.drain`.
pub async fn serve(listener: Listener, router: Router, options: ServeOptions, shutdown: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    let graceful = GracefulShutdown::new();
    let drain = Drain::of(shutdown.clone());
    let router = router.layer(axum::Extension(drain.clone()));
    let connections = Arc::new(Semaphore::new(options.max_connections));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = shutdown.cancelled() => break,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that ended before it was accepted: the next accept waits for an event.
                tracing::warn!(%error, listener = ?listener, "a connection could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let builder = builder.clone();
        let router = router.clone();
        let (watcher, drain) = (graceful.watcher(), drain.clone());
        match accepted {
            Accepted::Tcp(stream, address) => {
                let router = router.layer(axum::Extension(ConnectInfo(address)));
                tokio::spawn(async move {
                    connection(builder, stream, router, watcher, drain).await;
                    drop(permit);
                });
            }
            Accepted::Tls(stream, address, config) => {
                let router = router.layer(axum::Extension(ConnectInfo(address)));
                let deadline = options.header_timeout;
                tokio::spawn(async move {
                    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
                    match tokio::time::timeout(deadline, handshake).await {
                        Ok(Ok(stream)) => connection(builder, stream, router, watcher, drain).await,
                        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
            Accepted::Unix(stream, peer) => {
                let router = router.layer(axum::Extension(peer));
                tokio::spawn(async move {
                    connection(builder, stream, router, watcher, drain).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    tokio::select! {
        _ = async { tokio::join!(graceful.shutdown(), drain.released()) } => {}
        () = tokio::time::sleep(options.drain) => tracing::info!("requests still ran at the end of the drain; cut off"),
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream, std::net::SocketAddr),
    Tls(tokio::net::TcpStream, std::net::SocketAddr, Arc<rustls::ServerConfig>),
    Unix(tokio::net::UnixStream, PeerCredentials),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream, address))
        }
        Listener::Tls(listener, config) => {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tls(stream, address, Arc::clone(config)))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = stream.peer_cred()?;
            Ok(Accepted::Unix(stream, PeerCredentials { uid: peer.uid(), gid: peer.gid() }))
        }
    }
}

async fn connection<S>(
    builder: auto::Builder<TokioExecutor>,
    stream: S,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper_util::service::TowerToHyperService::new(
        router
            .map_request(|request: http::Request<hyper::body::Incoming>| request.map(Body::new))
            .map_response(move |response| drain.end_events(with_problem(response))),
    );
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// The router answers an unknown path or method with an empty body: here it becomes a problem, as every error is.
fn with_problem(response: Response) -> Response {
    let bare = !response.headers().contains_key(header::CONTENT_TYPE) && response.body().size_hint().exact() == Some(0);
    let problem = match response.status() {
        StatusCode::NOT_FOUND if bare => {
            Problem::not_found("there is nothing at this address: /openapi.json has all of them")
        }
        StatusCode::METHOD_NOT_ALLOWED if bare => Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this address does not take this method: the Allow header names those that it takes",
        ),
        _ => return response,
    };
    let mut answer = problem.into_response();
    let told = response.headers().iter().filter(|(name, _)| **name != header::CONTENT_LENGTH);
    answer.headers_mut().extend(told.map(|(name, value)| (name.clone(), value.clone())));
    answer
}

/// Files that are no certificate and key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain.
    #[error("{0} is not a certificate chain in PEM")]
    Chain(String, #[source] rustls_pki_types::pem::Error),
    /// The chain, of none.
    #[error("{0} holds no certificate: it must have a PEM block BEGIN CERTIFICATE")]
    Empty(String),
    /// The key.
    #[error("{0} is not a private key in PEM")]
    Key(String, #[source] rustls_pki_types::pem::Error),
    /// Together.
    #[error("{0} and {1} do not belong together")]
    Pair(String, String, #[source] rustls::Error),
}

/// A server's TLS from a certificate chain and its private key, both PEM. HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn tls_config(certificate: &std::path::Path, key: &std::path::Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    use rustls_pki_types::pem::PemObject as _;
    let (certificate_name, key_name) = (certificate.display().to_string(), key.display().to_string());
    let chain = rustls_pki_types::CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Chain(certificate_name.clone(), source))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate_name));
    }
    let private = rustls_pki_types::PrivateKeyDer::from_pem_file(key)
        .map_err(|source| TlsError::Key(key_name.clone(), source))?;
    crate::install_crypto();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| TlsError::Pair(certificate_name, key_name, source))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Listens on a unix socket that only its owner may use (mode 0600), in place of one left by a process that died.
///
/// # Errors
/// When another process still listens there, or the socket cannot be made.
pub fn bind_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another process serves {}: stop it first (`berth server stop`)", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode has to be set before anyone can connect, but `bind` makes the socket with the umask's mode: so it is made under an unknown
    // name, and renamed once its mode is set.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_no_route_takes_is_a_problem() {
        let router = Router::new()
            .route("/here", get(|| async { "here" }))
            .route("/gone", get(|| async { (StatusCode::NOT_FOUND, "gone") }));
        let ask = async |method: &str, path: &str| {
            let request = http::Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let (parts, body) = with_problem(router.clone().oneshot(request).await.unwrap()).into_parts();
            (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        let (parts, body) = ask("GET", "/nowhere").await;
        assert!(parts.status == 404 && parts.headers[header::CONTENT_TYPE] == "application/problem+json", "{parts:?}");
        assert!(body.contains("\"code\":\"not_found\""), "{body}");
        let (parts, body) = ask("POST", "/here").await;
        assert!(parts.status == 405 && parts.headers[header::ALLOW] == "GET,HEAD", "{parts:?}");
        assert!(body.contains("\"code\":\"method_not_allowed\""), "{body}");
        assert!(!parts.headers.contains_key(header::CONTENT_LENGTH), "the empty body's length does not stay");
        let (parts, body) = ask("GET", "/gone").await;
        assert_eq!((parts.status, body.as_str()), (StatusCode::NOT_FOUND, "gone"), "what says something is left alone");
    }
}
