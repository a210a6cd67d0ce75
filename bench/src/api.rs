//! The public API under load: 90 % reads (show, list of 50), 10 % writes (create stopped, rename), with a token, at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cpu::Cpu;
use crate::figures::{Report, percentile};
use crate::server::Server;

const CONNECTIONS: usize = 32;
const PATH: &str = "/api/v1/workspaces";

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorization: HeaderValue,
}

impl Connection {
    async fn open(token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect("127.0.0.1:7270").await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self { sender, authorization })
    }

    /// Sends a request; the body of its answer when it is wanted, otherwise read to its end and dropped.
    async fn call(&mut self, ask: &Ask, wanted: bool) -> anyhow::Result<Vec<u8>> {
        self.sender.ready().await?;
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.path)
            .header(HOST, "127.0.0.1")
            .header(AUTHORIZATION, &self.authorization);
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &ask.key {
            request = request.header("idempotency-key", key);
        }
        if ask.method == Method::PATCH {
            request = request.header(IF_MATCH, "*");
        }
        let response = self.sender.send_request(request.body(Full::new(ask.body.clone()))?).await?;
        let status = response.status();
        let mut frames = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = frames.frame().await {
            if let Ok(data) = frame?.into_data()
                && (wanted || !status.is_success())
            {
                body.extend_from_slice(&data);
            }
        }
        anyhow::ensure!(status == ask.status, "{}: {status}: {}", ask.path, String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// A request, and the status of its answer.
struct Ask {
    kind: &'static str,
    method: Method,
    path: String,
    body: Bytes,
    key: Option<String>,
    status: StatusCode,
}

impl Ask {
    fn get(kind: &'static str, path: String) -> Self {
        Self { kind, method: Method::GET, path, body: Bytes::new(), key: None, status: StatusCode::OK }
    }

    fn create(repository: &str, name: &str) -> Self {
        let body = serde_json::json!({ "context_url": repository, "start": false, "name": name });
        Self {
            kind: "create",
            method: Method::POST,
            path: PATH.to_owned(),
            body: body.to_string().into(),
            // Of this run alone: the home of an earlier run remembers its own.
            key: Some(format!("{name}-{}", std::process::id())),
            status: StatusCode::CREATED,
        }
    }

    fn rename(id: &str, name: &str) -> Self {
        let body = serde_json::json!({ "name": name }).to_string().into();
        Self {
            kind: "rename",
            method: Method::PATCH,
            path: format!("{PATH}/{id}"),
            body,
            key: None,
            status: StatusCode::OK,
        }
    }
}

/// What the n-th request is, and what a right answer to it says.
fn nth(number: usize, run: &str, repository: &str, id: &str) -> (Ask, fn(&serde_json::Value, &Ask) -> bool) {
    fn is_named(answer: &serde_json::Value, ask: &Ask) -> bool {
        serde_json::from_slice::<serde_json::Value>(&ask.body).is_ok_and(|asked| asked["name"] == answer["name"])
    }
    match number % 20 {
        0 => (Ask::create(repository, &format!("{run}-{number}")), is_named),
        10 => (Ask::rename(id, &format!("{run}-renamed-{number}")), is_named),
        odd if odd % 2 == 1 => (Ask::get("show", format!("{PATH}/{id}")), |answer, ask| {
            answer["id"].as_str().is_some_and(|id| ask.path.ends_with(id))
        }),
        _ => (Ask::get("list", format!("{PATH}?limit=50")), |answer, _| {
            answer["items"].as_array().is_some_and(|items| items.len() == 50 && items[49]["name"].is_string())
        }),
    }
}

/// Fills the database, then sends requests at the rate, and at a third more, to show what is in reserve.
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
    let (answers, reached, cpu) = load(server, &token, &ids, "load", rate, seconds).await?;
    let mut times = all(&answers);
    report.tell(
        &format!("API over {workspaces} workspaces, {} requests, reached", times.len()),
        format!("{reached:.0} requests/s"),
    );
    report.add(&format!("API at {rate} requests/s, p99"), percentile(&mut times, 0.99), 50.0, "ms");
    report.tell(
        "the same, p50 / p95",
        format!("{:.1} / {:.1} ms", percentile(&mut times, 0.50), percentile(&mut times, 0.95)),
    );
    for kind in ["show", "list", "create", "rename"] {
        let mut times: Vec<_> = answers.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time).collect();
        report.tell(
            &format!("of it {kind}, p50 / p99"),
            format!("{:.1} / {:.1} ms", percentile(&mut times, 0.50), percentile(&mut times, 0.99)),
        );
    }
    report.tell("cores used meanwhile: server / Postgres / driver and git host", cpu);
    let more = rate.saturating_mul(4) / 3;
    let (answers, reached, _) = load(server, &token, &ids, "more", more, seconds).await?;
    let mut times = all(&answers);
    report.tell(
        &format!("API asked for {more} requests/s, reached / p99"),
        format!("{reached:.0} requests/s / {:.1} ms", percentile(&mut times, 0.99)),
    );
    Ok(())
}

/// What was asked, and how long after its due time the answer came.
type Answer = (&'static str, Duration);

fn all(answers: &[Answer]) -> Vec<Duration> {
    answers.iter().map(|(_, time)| *time).collect()
}

/// Open loop: each request is due at its time whatever became of those before, and its latency counts from then.
async fn load(
    server: &Server,
    token: &Arc<str>,
    ids: &Arc<Vec<String>>,
    run: &'static str,
    rate: u32,
    seconds: u32,
) -> anyhow::Result<(Vec<Answer>, f64, String)> {
    let total = usize::try_from(rate * seconds)?;
    let next = Arc::new(AtomicUsize::new(0));
    let before = Cpu::now(server)?;
    let begin = Instant::now() + Duration::from_millis(200);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (ids, next, token) = (Arc::clone(ids), Arc::clone(&next), Arc::clone(token));
        let repository = server.repository.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(&token).await?;
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(times);
                }
                let (ask, is_right) = nth(number, run, &repository, &ids[number.wrapping_mul(7919) % ids.len()]);
                // The status of every answer is checked, but the content only of one in so many: reading all of it would burden the cores
                // that are measured. Coprime to the 20 kinds of requests, so that each kind has its turn.
                let wanted = number % 17 == 0;
                let due = begin + Duration::from_secs(1) * u32::try_from(number)? / rate;
                tokio::time::sleep_until(due.into()).await;
                let body = connection.call(&ask, wanted).await?;
                times.push((ask.kind, due.elapsed()));
                if wanted {
                    let answer = serde_json::from_slice(&body)?;
                    anyhow::ensure!(is_right(&answer, &ask), "{} {}: a wrong answer: {answer}", ask.method, ask.path);
                }
            }
        });
    }
    let mut times = Vec::new();
    while let Some(result) = tasks.join_next().await {
        times.append(&mut result??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = Cpu::now(server)?.since(&before, seconds);
    let reached = times.len() as f64 / seconds;
    Ok((times, reached, cpu))
}

async fn fill(server: &Server, token: &Arc<str>, workspaces: usize) -> anyhow::Result<Vec<String>> {
    let mut tasks = tokio::task::JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..CONNECTIONS {
        let (next, token, repository) = (Arc::clone(&next), Arc::clone(token), server.repository.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(&token).await?;
            let mut ids = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= workspaces {
                    return anyhow::Ok(ids);
                }
                let answer = connection.call(&Ask::create(&repository, &format!("fill-{number}")), true).await?;
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
