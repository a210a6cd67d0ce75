//! A git server that keeps its clients waiting.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use berth_http::{Listener, ServeOptions, serve};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A git server over the repositories below `root`. A request with these words, in its address or its body, is answered when `gate` has a
/// permit, which it takes for good.
pub async fn serve_held(root: &Path, words: &'static str, gate: Arc<Semaphore>) -> SocketAddr {
    let hold = move |request: Request, next: Next| {
        let gate = gate.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
            let said = format!("{} {}", parts.uri, String::from_utf8_lossy(&bytes));
            if said.contains(words) {
                gate.acquire().await.unwrap().forget();
            }
            let response: Response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
            response.into_response()
        }
    };
    serve_router(berth_git_serve::router(root.to_owned(), None, false).layer(from_fn(hold))).await
}

/// Serves a router on loopback.
pub async fn serve_router(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), CancellationToken::new()));
    address
}
