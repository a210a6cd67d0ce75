//! Calls from one service to another: the same JSON path whether the other's router is in this process or behind HTTP.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use crate::service_auth::ServiceTokens;
use crate::{Problem, ProblemBody, Upgraded};

/// Largest answer that a call reads.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other service said no.
    #[error("{}", .0.detail)]
    Problem(Box<ProblemBody>),
    /// It could not be reached, or broke the connection.
    #[error("cannot reach {service}: is it running and its address right?")]
    Transport {
        /// Who.
        service: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its answer does not have the agreed form.
    #[error("{service} gave an answer to {path} that cannot be read: are both of the same version?")]
    Decode {
        /// Who.
        service: String,
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CallError {
    /// Whether the other service answered 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(body) if body.status == 404)
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Problem(body) if body.status < 500 => Self::from_body(*body),
            CallError::Problem(body) => {
                Self::unavailable("a part of the server could not answer; try again").with_source(body.detail.clone())
            }
            CallError::Transport { .. } => {
                Self::unavailable("a part of the server cannot be reached; try again").with_source(error)
            }
            CallError::Decode { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "bad_gateway",
                "a part of the server gave an answer that cannot be read",
            )
            .with_source(error),
        }
    }
}

#[derive(Clone)]
enum Target {
    Router(Router),
    Remote { base: String, client: reqwest::Client, tokens: ServiceTokens },
}

/// A client for one other service.
#[derive(Clone)]
pub struct InternalClient {
    service: &'static str,
    target: Target,
}

impl std::fmt::Debug for InternalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalClient").field("service", &self.service).finish_non_exhaustive()
    }
}

impl InternalClient {
    /// Calls a router of this process.
    #[must_use]
    pub fn in_process(service: &'static str, router: Router) -> Self {
        Self { service, target: Target::Router(router) }
    }

    /// Calls the service at `base` (`http://host:port`), with a token of `tokens` for it.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn remote(service: &'static str, base: &str, tokens: ServiceTokens) -> Result<Self, CallError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a peer of this installation: its address comes from the configuration"
        )]
        let client = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| CallError::Transport { service: service.to_owned(), source: error.into() })?;
        Ok(Self { service, target: Target::Remote { base: base.trim_end_matches('/').to_owned(), client, tokens } })
    }

    /// GET, JSON out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.json(Method::GET, path, Body::empty()).await
    }

    /// POST, JSON in and out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, CallError> {
        let body = self.body(path, body)?;
        self.json(Method::POST, path, body).await
    }

    /// POST, JSON in, nothing out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post_empty<B: Serialize + Sync>(&self, path: &str, body: &B) -> Result<(), CallError> {
        let body = self.body(path, body)?;
        self.call(Method::POST, path, body).await.map(drop)
    }

    /// PUT, JSON in, nothing out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn put<B: Serialize + Sync>(&self, path: &str, body: &B) -> Result<(), CallError> {
        let body = self.body(path, body)?;
        self.call(Method::PUT, path, body).await.map(drop)
    }

    /// DELETE; what does not exist counts as deleted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete(&self, path: &str) -> Result<(), CallError> {
        match self.call(Method::DELETE, path, Body::empty()).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// GET of an event stream (`text/event-stream`) whose data is JSON.
    ///
    /// # Errors
    /// See [`CallError`]; the stream ends after its first error.
    pub async fn events<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<T, CallError>> + Send + Unpin + use<T>, CallError> {
        let response = self.call(Method::GET, path, Body::empty()).await?;
        let service = self.service;
        let path = path.to_owned();
        let lines = lines(response.into_body(), service);
        Ok(Box::pin(lines.filter_map(move |line| {
            let item = match line {
                Ok(line) => line.strip_prefix("data:").map(|data| {
                    serde_json::from_str(data.trim_start()).map_err(|error| CallError::Decode {
                        service: service.to_owned(),
                        path: path.clone(),
                        source: error.into(),
                    })
                }),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(item)
        })))
    }

    /// GET whose body is passed on as it comes (logs).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stream(&self, path: &str) -> Result<Response<Body>, CallError> {
        self.call(Method::GET, path, Body::empty()).await
    }

    /// GET with `Upgrade: protocol`; the raw stream after the server's 101.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn upgrade(&self, path: &str, protocol: &'static str) -> Result<Upgraded, CallError> {
        let response = match &self.target {
            Target::Router(router) => {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                let service = hyper_util::service::TowerToHyperService::new(
                    router.clone().map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new)),
                );
                tokio::spawn(async move {
                    let connection =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%error, "an in-process connection ended");
                    }
                });
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
                    .await
                    .map_err(|error| self.transport(error))?;
                tokio::spawn(async move { connection.with_upgrades().await });
                let request = self
                    .builder(Method::GET, path)
                    .header(header::HOST, self.service)
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, protocol)
                    .body(Body::empty())
                    .map_err(|error| self.transport(error))?;
                sender.send_request(request).await.map_err(|error| self.transport(error))?.map(Body::new)
            }
            Target::Remote { base, client, tokens } => {
                let response = client
                    .get(format!("{base}{path}"))
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, protocol)
                    .bearer_auth(tokens.token_for(self.service))
                    .send()
                    .await
                    .map_err(|error| self.transport(error))?;
                Response::<reqwest::Body>::from(response).map(Body::new)
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.problem(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.transport(error))?;
        Ok(Upgraded::new(upgraded))
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T, CallError> {
        let response = self.call(method, path, body).await?;
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| CallError::Decode {
            service: self.service.to_owned(),
            path: path.to_owned(),
            source: error.into(),
        })
    }

    async fn call(&self, method: Method, path: &str, body: Body) -> Result<Response<Body>, CallError> {
        let response = match &self.target {
            Target::Router(router) => {
                let request = self
                    .builder(method, path)
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body)
                    .map_err(|error| self.transport(error))?;
                match router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Target::Remote { base, client, tokens } => {
                let bytes = body.collect().await.map_err(|error| self.transport(error))?.to_bytes();
                let response = client
                    .request(method, format!("{base}{path}"))
                    .bearer_auth(tokens.token_for(self.service))
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(bytes)
                    .send()
                    .await
                    .map_err(|error| self.transport(error))?;
                Response::<reqwest::Body>::from(response).map(Body::new)
            }
        };
        if response.status().is_success() { Ok(response) } else { Err(self.problem(response).await) }
    }

    fn builder(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path)
    }

    fn body<B: Serialize>(&self, path: &str, body: &B) -> Result<Body, CallError> {
        serde_json::to_vec(body).map(Body::from).map_err(|error| CallError::Decode {
            service: self.service.to_owned(),
            path: path.to_owned(),
            source: error.into(),
        })
    }

    async fn read(&self, response: Response<Body>) -> Result<Bytes, CallError> {
        http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|source| CallError::Transport { service: self.service.to_owned(), source })
    }

    async fn problem(&self, response: Response<Body>) -> CallError {
        let status = response.status();
        match self.read(response).await {
            Ok(bytes) => CallError::Problem(Box::new(serde_json::from_slice(&bytes).unwrap_or_else(|_| ProblemBody {
                kind: "about:blank".to_owned(),
                title: status.canonical_reason().unwrap_or("Error").to_owned(),
                status: status.as_u16(),
                code: "unknown".to_owned(),
                detail: format!("{} answered {status}: {}", self.service, String::from_utf8_lossy(&bytes)),
                errors: Vec::new(),
            }))),
            Err(error) => error,
        }
    }

    fn transport(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CallError {
        CallError::Transport { service: self.service.to_owned(), source: error.into() }
    }
}

/// The complete lines of a body, however it is split into chunks.
fn lines(body: Body, service: &'static str) -> impl Stream<Item = Result<String, CallError>> + Send {
    let chunks = body.into_data_stream();
    futures::stream::unfold((chunks, Vec::<u8>::new(), false), move |(mut chunks, mut buffer, done)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let rest = buffer.split_off(end + 1);
                let line = String::from_utf8_lossy(&buffer).trim_end().to_owned();
                return Some((Ok(line), (chunks, rest, done)));
            }
            if done {
                return None;
            }
            match chunks.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    let error = CallError::Transport { service: service.to_owned(), source: error.into() };
                    return Some((Err(error), (chunks, Vec::new(), true)));
                }
                None if buffer.is_empty() => return None,
                None => {
                    buffer.push(b'\n');
                }
            }
        }
    })
}
