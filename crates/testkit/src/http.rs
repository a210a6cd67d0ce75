//! Short ways to call a router.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null when it is empty or not JSON.
    pub json: serde_json::Value,
    /// The body as text.
    pub text: String,
}

/// A request with a JSON body (none when it is null) and a bearer token (none when it is empty).
///
/// # Panics
/// When method or path are not valid.
#[must_use]
pub fn request(method: &str, path: &str, token: &str, body: &serde_json::Value) -> Request<Body> {
    let mut builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap_or_default()).uri(path);
    if !token.is_empty() {
        builder = builder.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        builder = builder.header(http::header::CONTENT_TYPE, "application/json");
        Body::from(body.to_string())
    };
    match builder.body(body) {
        Ok(request) => request,
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

/// Sends a request to a router.
///
/// # Panics
/// When the body breaks off.
pub async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => panic!("the answer broke off: {error}"),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        status: parts.status,
        headers: parts.headers,
        json: serde_json::from_str(&text).unwrap_or(serde_json::Value::Null),
        text,
    }
}
