//! The service client and the accept loop, against each other.

#![cfg(test)]

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::routing::{get, post};
use berth_http::drain::Drain;
use berth_http::service_auth::{RequireService, ServiceKeys, ServiceTokens};
use berth_http::{
    CallError, InternalClient, Json, Listener, PeerCredentials, Problem, ServeOptions, proxy, serve, upgrade,
};
use futures::StreamExt as _;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn router() -> Router {
    Router::new()
        .route("/double", post(|Json(n): Json<u64>| async move { Json(n * 2) }))
        .route("/none", get(|| async { Problem::not_found("there is no such thing").with_error("/x", "wrong") }))
        .route("/events", get(|| async { berth_http::sse::json_stream(futures::stream::iter([1_u64, 2, 3])) }))
        .route(
            "/echo",
            get(|request: Request| async move {
                upgrade::accept(request, "echo", |mut stream| async move {
                    let mut word = [0_u8; 5];
                    if stream.read_exact(&mut word).await.is_ok() {
                        let _ = stream.write_all(&word).await;
                    }
                })
            }),
        )
        .route(
            "/whoami",
            get(|peer: Option<axum::Extension<PeerCredentials>>| async move { Json(peer.map(|peer| peer.uid)) }),
        )
}

async fn exercise(client: &InternalClient) {
    assert_eq!(client.post::<_, u64>("/double", &21).await.unwrap(), 42);
    match client.get::<u64>("/none").await.unwrap_err() {
        CallError::Problem(body) => {
            assert_eq!((body.status, body.code.as_str()), (404, "not_found"));
            assert_eq!(body.errors[0].pointer, "/x");
        }
        other => panic!("{other}"),
    }
    assert!(
        matches!(client.post::<_, u64>("/double", &"x").await, Err(CallError::Problem(body)) if body.status == 422)
    );
    let events: Vec<u64> = client.events::<u64>("/events").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events, [1, 2, 3]);
    let mut stream = client.upgrade("/echo", "echo").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut word = [0_u8; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
}

#[tokio::test]
async fn calls_in_one_process() {
    exercise(&InternalClient::in_process("test", router())).await;
}

/// A key pair of an installation.
fn service_keys() -> ServiceKeys {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    let run = |args: &[&str]| {
        assert!(
            std::process::Command::new("openssl").args(args).output().unwrap().status.success(),
            "openssl {args:?}"
        );
    };
    run(&["genpkey", "-algorithm", "ed25519", "-out", key.to_str().unwrap()]);
    let public = directory.path().join("public.pem");
    run(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
    ServiceKeys::from_pem(&std::fs::read(&key).unwrap(), &std::fs::read(&public).unwrap()).unwrap()
}

#[tokio::test]
async fn calls_over_http_with_service_tokens() {
    berth_http::install_crypto();
    let keys = service_keys();
    let clock = berth_clock::SystemClock::shared();
    let protected = RequireService::new(keys.clone(), clock.clone(), "test", &["api"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(
        Listener::Tcp(listener),
        protected.protect(router()),
        ServeOptions::default(),
        shutdown.clone(),
    ));
    let tokens = |issuer| ServiceTokens::for_service(issuer, keys.clone(), clock.clone());
    exercise(&InternalClient::remote("test", &base, tokens("api")).unwrap()).await;
    for wrong in [
        InternalClient::remote("test", &base, tokens("billing")).unwrap(),
        InternalClient::remote("other", &base, tokens("api")).unwrap(),
    ] {
        assert!(
            matches!(wrong.post::<_, u64>("/double", &1).await, Err(CallError::Problem(body)) if body.status == 401)
        );
    }
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_tells_who_calls_and_is_not_taken_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = serve::bind_unix(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(Listener::Unix(listener), router(), ServeOptions::default(), shutdown.clone()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(&rustix_uid()), "{answer}");
    assert_eq!(serve::bind_unix(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    shutdown.cancel();
    server.await.unwrap();
}

fn rustix_uid() -> String {
    rustix::process::getuid().as_raw().to_string()
}

/// The drain is longer than the test may take: what would never end by itself must be ended.
#[tokio::test]
async fn at_the_end_events_end_whole_and_what_holds_the_listener_is_waited_for() {
    let endless = Router::new()
        .route("/events", get(|| async { berth_http::sse::json_stream(futures::stream::pending::<u64>()) }))
        .route(
            "/hold",
            get(|axum::Extension(drain): axum::Extension<Drain>| async move {
                let held = drain.hold();
                tokio::spawn(async move {
                    let _held = held;
                    drain.begun().await;
                });
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let options = ServeOptions { drain: std::time::Duration::from_secs(600), ..ServeOptions::default() };
    let server = tokio::spawn(serve(Listener::Tcp(listener), endless, options, shutdown.clone()));
    let ask = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stream
    };
    let mut events = ask("/events").await;
    let hold = ask("/hold").await;
    assert!(!server.is_finished());
    shutdown.cancel();
    let mut rest = String::new();
    events.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the last chunk is there: {rest:?}");
    tokio::time::timeout(std::time::Duration::from_secs(60), server).await.unwrap().unwrap();
    drop(hold);
}

async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), shutdown));
    format!("http://{address}")
}

/// A chain of two proxies before `router`; the address of the outer one.
async fn behind_two_proxies(router: Router) -> String {
    berth_http::install_crypto();
    let (keys, clock) = (service_keys(), berth_clock::SystemClock::shared());
    let tokens = |issuer| ServiceTokens::for_service(issuer, keys.clone(), clock.clone());
    let verifier = |audience, proxies| RequireService::new(keys.clone(), clock.clone(), audience, proxies);
    let last = listen(proxy::behind(verifier("scm", &["api"]), router)).await;
    let middle = Router::new().fallback_service(proxy::to("scm", &last, tokens("api")).unwrap());
    let middle = listen(proxy::behind(verifier("api", &["gateway"]), middle)).await;
    listen(Router::new().fallback_service(proxy::to("api", &middle, tokens("gateway")).unwrap())).await
}

#[tokio::test]
async fn a_proxy_passes_requests_events_and_upgrades() {
    let front = behind_two_proxies(router()).await;
    let tokens = ServiceTokens::for_service("nobody", service_keys(), berth_clock::SystemClock::shared());
    exercise(&InternalClient::remote("test", &front, tokens.clone()).unwrap()).await;
    assert!(proxy::to("test", "ftp://x", tokens).is_err());
}

#[tokio::test]
async fn only_proxies_of_the_installation_say_where_a_request_comes_from() {
    async fn origin(ConnectInfo(address): ConnectInfo<SocketAddr>, headers: HeaderMap) -> String {
        assert!(!headers.contains_key("x-forwarded-for") && !headers.contains_key("berth-forwarded-by"));
        address.ip().to_string()
    }
    let router = Router::new().route("/origin", get(origin));
    let ask = async |base: &str, from: Option<&str>, headers: &[(&str, &str)]| {
        let stream = match from {
            None => tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.unwrap(),
            Some(from) => {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
                socket.connect(base.trim_start_matches("http://").parse().unwrap()).await.unwrap()
            }
        };
        let mut stream = stream;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET /origin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let front = behind_two_proxies(router.clone()).await;
    let answer = ask(&front, Some("127.0.0.9"), &[("x-forwarded-for", "192.0.2.1")]).await;
    assert!(answer.ends_with("127.0.0.9"), "{answer}");

    // Past the proxies: nobody's word counts without a token, and a wrong token is refused.
    let verifier = RequireService::new(service_keys(), berth_clock::SystemClock::shared(), "scm", &["api"]);
    let direct = listen(proxy::behind(verifier, router)).await;
    let answer = ask(&direct, None, &[("x-forwarded-for", "192.0.2.1")]).await;
    assert!(answer.ends_with("127.0.0.1"), "{answer}");
    let answer = ask(&direct, None, &[("x-forwarded-for", "192.0.2.1"), ("berth-forwarded-by", "x")]).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
