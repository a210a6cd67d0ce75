//! `Idempotency-Key`: a POST that is sent again gets the first answer again, and does its work once.
//!
//! A key belongs to its user. The first request holds it while it works; the same request waits meanwhile for that answer; another request
//! with the key is refused. If a process dies at work, its key stays held for a while. What the request had made is noted with the key in the
//! transaction that made it, so the request that takes over returns that and makes nothing twice.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use berth_authz::PrincipalExtension;
use berth_http::Problem;
use berth_ids::UserId;
use chrono::TimeDelta;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::state::Api;
use crate::store::idempotency::{self, Begin, Stored};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY_CHARS: usize = 200;
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// How long a request waits for an identical one that is at work.
const WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Wakes those who wait for an answer of this process.
#[derive(Debug, Default)]
pub(crate) struct Finished(Notify);

/// In the request's extensions while it holds a key.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) user: UserId,
    pub(crate) key: Arc<str>,
    /// What an earlier try of this request made before its process died.
    pub(crate) made_before: Option<Uuid>,
}

/// In a response's extensions: the answer contains a secret that is not stored, so a repeated request is told this instead.
#[derive(Clone, Debug)]
pub(crate) struct Unrepeatable(pub(crate) String);

pub(crate) async fn layer(State(api): State<Api>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(&HEADER) {
        return next.run(request).await;
    }
    match once(&api, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

fn key(headers: &HeaderMap) -> Result<Arc<str>, Problem> {
    let refused = || {
        let detail = format!("Idempotency-Key takes one key of 1 to {MAX_KEY_CHARS} visible ASCII characters");
        Problem::bad_request("invalid_idempotency_key", detail)
    };
    let mut values = headers.get_all(&HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refused()) };
    let text = value.to_str().map_err(|_| refused())?.trim();
    let fits = !text.is_empty() && text.len() <= MAX_KEY_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.into()) } else { Err(refused()) }
}

async fn once(api: &Api, request: Request, next: Next) -> Result<Response, Problem> {
    let key = key(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let Some(PrincipalExtension(principal)) = parts.extensions.get::<PrincipalExtension>() else {
        return Err(Problem::internal("idempotency without authentication: the layers are in the wrong order"));
    };
    let user = principal.user_id;
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the request body is larger than 2 MiB, or broke off",
        )
    })?;
    let mut digest = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), b"\n", parts.uri.to_string().as_bytes(), b"\n", &body] {
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();

    let made_before = match begin(api, user, &key, &digest).await? {
        Outcome::Work(made_before) => made_before,
        Outcome::Answer(stored) => return Ok(replay(stored)),
    };
    parts.extensions.insert(Held { user, key: Arc::clone(&key), made_before });
    let request = Request::from_parts(parts, Body::from(body));
    // In a task of its own: a client that hangs up must not leave the work half done and the key held.
    let task_api = api.clone();
    let task = tokio::spawn(async move { work(&task_api, user, &key, request, next).await });
    task.await.map_err(Problem::internal)?
}

enum Outcome {
    Work(Option<Uuid>),
    Answer(Stored),
}

async fn begin(api: &Api, user: UserId, key: &str, digest: &[u8; 32]) -> Result<Outcome, Problem> {
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let woken = api.finished().0.notified();
        tokio::pin!(woken);
        // From here on no notification is missed, even one that comes before the wait.
        woken.as_mut().enable();
        let now = api.now();
        let until = now + TimeDelta::seconds(i64::from(api.config().wait_seconds) + 60);
        let mut conn = api.connection().await?;
        let begun = idempotency::begin(&mut conn, user, key, digest, now, until).await?;
        drop(conn);
        match begun {
            Begin::Fresh => return Ok(Outcome::Work(None)),
            Begin::Abandoned(made) => return Ok(Outcome::Work(made)),
            Begin::Replay(stored) => return Ok(Outcome::Answer(stored)),
            Begin::Different => {
                return Err(Problem::conflict(
                    "idempotency_key_reused",
                    "this Idempotency-Key was used for another request: use a new one for each request",
                ));
            }
            Begin::InProgress => {
                if tokio::time::timeout_at(deadline, woken).await.is_err() {
                    return Err(Problem::conflict(
                        "idempotency_in_progress",
                        "the same request is still at work: ask again in a moment",
                    )
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("2")));
                }
            }
        }
    }
}

async fn work(api: &Api, user: UserId, key: &str, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(Problem::internal)?;
    let mut conn = api.connection().await?;
    // Answers that a retry may improve are not kept: our own errors, limits, and credentials that must be renewed.
    let again = parts.status.is_server_error()
        || matches!(
            parts.status,
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    if again {
        idempotency::forget(&mut conn, user, key).await?;
    } else {
        let stored = match parts.extensions.remove::<Unrepeatable>() {
            Some(Unrepeatable(detail)) => refusal(&Problem::conflict("already_done", detail)),
            None => stored(parts.status, &parts.headers, &body),
        };
        idempotency::finish(&mut conn, user, key, &stored).await?;
    }
    drop(conn);
    api.finished().0.notify_waiters();
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn refusal(problem: &Problem) -> Stored {
    Stored {
        status: problem.status().as_u16(),
        content_type: Some("application/problem+json".to_owned()),
        location: None,
        etag: None,
        body: serde_json::to_vec(&problem.body()).unwrap_or_default(),
    }
}

fn stored(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Stored {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    Stored {
        status: status.as_u16(),
        content_type: text(header::CONTENT_TYPE),
        location: text(header::LOCATION),
        etag: text(header::ETAG),
        body: body.to_vec(),
    }
}

fn replay(stored: Stored) -> Response {
    let mut response = Response::new(Body::from(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields =
        [(header::CONTENT_TYPE, stored.content_type), (header::LOCATION, stored.location), (header::ETAG, stored.etag)];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
