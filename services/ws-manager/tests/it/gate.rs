//! Stands between a client and the API server: counts writes, dies at a chosen one, or is away for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use tokio::sync::watch;
use tower::{Service, ServiceExt as _};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What happens to a chosen write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It never reaches the server.
    Before,
    /// It is done, and the answer never comes back.
    After,
}

#[derive(Debug)]
struct State {
    writes: Mutex<Vec<String>>,
    armed: Mutex<Option<(usize, Death)>>,
    count: AtomicUsize,
    struck: watch::Sender<bool>,
    away: watch::Sender<bool>,
}

/// The gate.
#[derive(Clone, Debug)]
pub struct Gate {
    router: Router,
    token: Option<&'static str>,
    state: Arc<State>,
}

impl Gate {
    pub fn new(router: Router) -> Self {
        let state = State {
            writes: Mutex::default(),
            armed: Mutex::default(),
            count: AtomicUsize::new(0),
            struck: watch::Sender::new(false),
            away: watch::Sender::new(false),
        };
        Self { router, token: None, state: Arc::new(state) }
    }

    /// Shows a token with each request.
    pub fn with_token(router: Router, token: &'static str) -> Self {
        Self { token: Some(token), ..Self::new(router) }
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "berth")
    }

    /// Writes since the last call, without those of the leader election.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.writes.lock().unwrap())
    }

    /// The n-th write from now (from 1) is the last one.
    pub fn arm(&self, at: usize, death: Death) {
        self.state.count.store(0, Ordering::SeqCst);
        *self.state.armed.lock().unwrap() = Some((at, death));
    }

    /// Resolves when the chosen write has come.
    pub async fn struck(&self) {
        self.state.struck.subscribe().wait_for(|struck| *struck).await.unwrap();
    }

    pub fn has_struck(&self) -> bool {
        *self.state.struck.borrow()
    }

    /// The API server is away: open watches end, calls fail.
    pub fn away(&self, away: bool) {
        self.state.away.send_replace(away);
    }
}

impl Service<Request<kube::client::Body>> for Gate {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<kube::client::Body>) -> Self::Future {
        let Self { router, state, token } = self.clone();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Box::pin(async move {
            let is_write = request.method() != Method::GET && !request.uri().path().contains("/leases");
            let mut death = None;
            if is_write {
                let line = format!("{} {}", request.method(), request.uri().path());
                state.writes.lock().unwrap().push(line);
                // Events are written beside the controller's own work, at any time.
                if !request.uri().path().contains("/events") {
                    let count = state.count.fetch_add(1, Ordering::SeqCst) + 1;
                    death = state.armed.lock().unwrap().filter(|(at, _)| *at == count).map(|(_, death)| death);
                }
            }
            if death == Some(Death::Before) {
                state.struck.send_replace(true);
                return std::future::pending().await;
            }
            if *state.away.borrow() {
                return Err("the API server is away".into());
            }
            let response = router.oneshot(request.map(Body::new)).await.unwrap();
            if death == Some(Death::After) {
                state.struck.send_replace(true);
                return std::future::pending().await;
            }
            let mut away = state.away.subscribe();
            Ok(response.map(|body| {
                let gone = async move { drop(away.wait_for(|away| *away).await) };
                Body::from_stream(body.into_data_stream().take_until(Box::pin(gone)))
            }))
        })
    }
}
