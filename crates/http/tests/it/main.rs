//! The service client and the accept loop, against each other.

#![cfg(test)]

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use berth_http::{CallError, InternalClient, Json, Listener, PeerCredentials, Problem, ServeOptions, serve, upgrade};
use futures::StreamExt as _;
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

#[tokio::test]
async fn calls_over_http_with_service_tokens() {
    berth_http::install_crypto();
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
    let keys = berth_http::service_auth::ServiceKeys::from_pem(
        &std::fs::read(&key).unwrap(),
        &std::fs::read(&public).unwrap(),
    )
    .unwrap();
    let clock = berth_clock::SystemClock::shared();
    let protected = berth_http::service_auth::RequireService::new(keys.clone(), clock.clone(), "test", &["api"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(
        Listener::Tcp(listener),
        protected.protect(router()),
        ServeOptions::default(),
        shutdown.clone(),
    ));
    let tokens = |issuer| berth_http::service_auth::ServiceTokens::for_service(issuer, keys.clone(), clock.clone());
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

#[tokio::test]
async fn a_proxy_passes_requests_events_and_upgrades() {
    let listen = async |router: Router| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(
            Listener::Tcp(listener),
            router,
            ServeOptions::default(),
            tokio_util::sync::CancellationToken::new(),
        ));
        format!("http://{address}")
    };
    let behind = listen(router()).await;
    let front = listen(berth_http::proxy::to(&behind).unwrap()).await;
    let proxied = InternalClient::in_process("test", berth_http::proxy::to(&front).unwrap());
    exercise(&proxied).await;
    assert!(berth_http::proxy::to("ftp://x").is_err());
}
