//! The public API under load: 90 % reads (show, list of 50), 10 % writes (create stopped, rename), with a token, at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::figures::{Report, percentile};
use crate::server::Server;

const CONNECTIONS: usize = 32;

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    token: Arc<str>,
}

impl Connection {
    async fn open(token: Arc<str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect("127.0.0.1:7270").await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, token })
    }

    async fn call(&mut self, method: Method, path: &str, body: serde_json::Value, key: &str) -> anyhow::Result<Bytes> {
        self.sender.ready().await?;
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if path.starts_with("/api/v1/workspaces/") && !body.is_empty() {
            request = request.header("if-match", "*");
        }
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        Ok(bytes)
    }
}

/// Fills the database, then sends requests at the rate, open loop: a late answer counts from when it should have been asked.
pub(crate) async fn measure(
    server: &Server,
    workspaces: usize,
    rate: u32,
    seconds: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let created = tokio::task::block_in_place(|| server.json(&["token", "create", "bench"]))?;
    let token: Arc<str> = created["secret"].as_str().context("the token")?.into();
    let ids = Arc::new(fill(server, &token, workspaces).await?);
    let total = usize::try_from(rate * seconds)?;
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now() + Duration::from_millis(200);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (ids, next, token) = (Arc::clone(&ids), Arc::clone(&next), Arc::clone(&token));
        let repository = server.repository.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(token).await?;
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(times);
                }
                let due = begin + Duration::from_secs(1) * u32::try_from(number)? / rate;
                tokio::time::sleep_until(due.into()).await;
                let id = &ids[number.wrapping_mul(7919) % ids.len()];
                match number % 20 {
                    0 => {
                        let body = serde_json::json!({ "context_url": repository, "start": false, "name": format!("load-{number}") });
                        connection.call(Method::POST, "/api/v1/workspaces", body, &key("load", number)).await?;
                    }
                    10 => {
                        let body = serde_json::json!({ "name": format!("renamed-{number}") });
                        connection.call(Method::PATCH, &format!("/api/v1/workspaces/{id}"), body, "").await?;
                    }
                    odd if odd % 2 == 1 => {
                        connection.call(Method::GET, &format!("/api/v1/workspaces/{id}"), serde_json::Value::Null, "").await?;
                    }
                    _ => {
                        connection.call(Method::GET, "/api/v1/workspaces?limit=50", serde_json::Value::Null, "").await?;
                    }
                }
                times.push(due.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(result) = tasks.join_next().await {
        times.append(&mut result??);
    }
    let took = begin.elapsed().as_secs_f64();
    report.tell(
        &format!("API over {workspaces} workspaces, {total} requests, reached"),
        format!("{:.0} requests/s", total as f64 / took),
    );
    report.add(&format!("API at {rate} requests/s, p99"), percentile(&mut times, 0.99), 50.0, "ms");
    report.tell("the same, p50", format!("{:.1} ms", percentile(&mut times, 0.50)));
    Ok(())
}

/// An idempotency key of this run alone: the home of an earlier run remembers its own.
fn key(what: &str, number: usize) -> String {
    format!("{what}-{}-{number}", std::process::id())
}

async fn fill(server: &Server, token: &Arc<str>, workspaces: usize) -> anyhow::Result<Vec<String>> {
    let mut tasks = tokio::task::JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (next, token, repository) = (Arc::clone(&next), Arc::clone(token), server.repository.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(token).await?;
            let mut ids = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= workspaces {
                    return anyhow::Ok(ids);
                }
                let body =
                    serde_json::json!({ "context_url": repository, "start": false, "name": format!("fill-{number}") });
                let answer = connection.call(Method::POST, "/api/v1/workspaces", body, &key("fill", number)).await?;
                let workspace: serde_json::Value = serde_json::from_slice(&answer)?;
                ids.push(workspace["id"].as_str().context("the id")?.to_owned());
            }
        });
    }
    let mut ids = Vec::new();
    while let Some(result) = tasks.join_next().await {
        ids.append(&mut result??);
    }
    Ok(ids)
}
