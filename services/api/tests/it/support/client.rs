//! A client of a router, in memory.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use berth_http::PeerCredentials;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

#[derive(Clone)]
pub(crate) struct Client {
    router: Router,
    headers: Vec<(String, String)>,
    peer: Option<PeerCredentials>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    /// The answer is a problem with this status and code.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
    }
}

impl Client {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, headers: Vec::new(), peer: None }
    }

    pub(crate) fn peer(mut self, uid: u32) -> Self {
        self.peer = Some(PeerCredentials { uid, gid: uid });
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// The same credentials at another router.
    pub(crate) fn at(&self, router: Router) -> Self {
        Self { router, ..self.clone() }
    }

    fn request(&self, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
        let mut builder = Request::builder().method(method).uri(path);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let mut request = match body {
            Some(body) => builder.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => builder.body(Body::empty()),
        }
        .unwrap();
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        request
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let response = self.router.clone().oneshot(self.request(method, path, body)).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// A workspace of the fake's repository; `extra` goes into the body.
    pub(crate) async fn workspace(&self, extra: Value) -> Answer {
        let mut body = serde_json::json!({ "context_url": "https://git.example.com/team/hello" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.post("/api/v1/workspaces", body).await
    }

    /// The status of an event stream, and its events as they come.
    pub(crate) async fn events(&self, path: &str) -> (u16, Events) {
        let response = self.router.clone().oneshot(self.request(Method::GET, path, None)).await.unwrap();
        let status = response.status().as_u16();
        (status, Events { body: response.into_body(), buffer: String::new(), raw: String::new() })
    }
}

pub(crate) struct Events {
    body: Body,
    buffer: String,
    raw: String,
}

impl Events {
    /// The next event's JSON; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.buffer.find('\n') {
                let line: String = self.buffer.drain(..=end).collect();
                if let Some(data) = line.trim().strip_prefix("data:") {
                    return Some(serde_json::from_str(data.trim()).unwrap());
                }
            }
            let chunk = {
                let mut stream = std::mem::take(&mut self.body).into_data_stream();
                let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next())
                    .await
                    .expect("no event within 20 s");
                self.body = Body::from_stream(stream);
                chunk
            };
            let chunk = chunk?.unwrap();
            let text = std::str::from_utf8(&chunk).unwrap();
            self.buffer.push_str(text);
            self.raw.push_str(text);
        }
    }

    /// All that has come, as it came.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// The next event of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The next event that shows a workspace in this phase.
    pub(crate) async fn phase(&mut self, phase: &str) -> Value {
        loop {
            let event = self.until("workspace").await;
            if event["workspace"]["phase"] == phase {
                return event["workspace"].clone();
            }
        }
    }
}
