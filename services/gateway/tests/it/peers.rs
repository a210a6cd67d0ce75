//! Everybody around the gateway.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth_api_types::channel::{CONTROL, Control};
use berth_api_types::internal::{Act, Authorize, Authorized, InstanceEvent, InstanceStatus, WorkspaceAction};
use berth_api_types::public::Phase;
use berth_gateway::{Config, Dependencies, Gateway, Nodes};
use berth_http::{InternalClient, Problem, Upgraded, sse};
use berth_ids::{InstanceId, UserId, WorkspaceId};
use berth_supervisor_client::protocol as wire;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "Bearer berth_pat_ada";

/// What the peers know and saw.
#[derive(Debug)]
pub struct Peers {
    pub instance: InstanceId,
    workspace: WorkspaceId,
    user: UserId,
    status: Mutex<InstanceStatus>,
    news: broadcast::Sender<InstanceEvent>,
    pub allowed: AtomicBool,
    pub asked: Mutex<Vec<WorkspaceAction>>,
    /// What api was told for the audit log, and whether it can write it.
    pub acts: Mutex<Vec<Act>>,
    pub logs_acts: AtomicBool,
    pub logs_asked: AtomicUsize,
    /// How many requests were asked to be counted, and may still be.
    pub counted: AtomicUsize,
    pub allowance: AtomicUsize,
    pub activity: AtomicUsize,
    pub requests: Mutex<Vec<wire::Request>>,
    pub files: Mutex<HashMap<String, Vec<u8>>>,
    /// A real supervisor's socket, instead of the script.
    pub real: Mutex<Option<PathBuf>>,
}

/// The gateway, listening, and its peers.
pub struct World {
    pub peers: Arc<Peers>,
    pub address: String,
    pub shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

impl World {
    pub async fn new(phase: Phase) -> Self {
        Self::with(phase, Config::default()).await
    }

    pub async fn with(phase: Phase, config: Config) -> Self {
        Self::build(phase, config, Gateway::new).await
    }

    /// As in the split shape, where a request meets the gateway first.
    pub async fn at_the_edge(config: Config) -> Self {
        Self::build(Phase::Running, config, Gateway::at_the_edge).await
    }

    async fn build(
        phase: Phase,
        config: Config,
        gateway: fn(Config, Dependencies) -> Result<Gateway, berth_gateway::ConfigError>,
    ) -> Self {
        let (instance, workspace, user) =
            (InstanceId::from_uuid(uuid(1)), WorkspaceId::from_uuid(uuid(2)), UserId::from_uuid(uuid(3)));
        let status = InstanceStatus {
            instance_id: instance,
            workspace_id: workspace,
            owner_id: user,
            version: 1,
            phase,
            reason: String::new(),
            failed: false,
            node: Some("one".into()),
            image_digest: None,
            resources: None,
            steps: Vec::new(),
            started_at: None,
            stopped_at: None,
            last_activity: None,
            timeout_warning: None,
        };
        let peers = Arc::new(Peers {
            instance,
            workspace,
            user,
            status: Mutex::new(status),
            news: broadcast::Sender::new(64),
            allowed: AtomicBool::new(true),
            asked: Mutex::default(),
            acts: Mutex::default(),
            logs_acts: AtomicBool::new(true),
            logs_asked: AtomicUsize::new(0),
            counted: AtomicUsize::new(0),
            allowance: AtomicUsize::new(usize::MAX),
            activity: AtomicUsize::new(0),
            requests: Mutex::default(),
            files: Mutex::default(),
            real: Mutex::default(),
        });
        let api = Router::new().route("/internal/authorize", post(authorize)).with_state(peers.clone());
        let ws_manager = Router::new()
            .route("/internal/instances/watch", get(watch))
            .route("/internal/instances/{id}/activity", post(activity))
            .with_state(peers.clone());
        let node = Router::new()
            .route("/internal/instances/{id}/supervisor", get(supervisor))
            .route("/internal/instances/{id}/logs", get(logs))
            .with_state(peers.clone());
        let dependencies = Dependencies {
            api: InternalClient::in_process("api", api),
            ws_manager: InternalClient::in_process("ws-manager", ws_manager),
            nodes: Nodes::ByName(HashMap::from([("one".to_owned(), InternalClient::in_process("node", node))])),
        };
        let gateway = gateway(config, dependencies).unwrap();
        let shutdown = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = gateway.router();
        let token = shutdown.clone();
        tokio::spawn(berth_http::serve(berth_http::Listener::Tcp(listener), router, Default::default(), token));
        let token = shutdown.clone();
        tokio::spawn(async move { gateway.run(token).await });
        Self { peers, address, shutdown }
    }

    pub fn set(&self, phase: Phase, reason: &str) {
        let mut status = self.peers.status.lock().unwrap();
        status.version += 1;
        status.phase = phase;
        status.reason = reason.to_owned();
        self.peers.news.send(InstanceEvent::Status(Box::new(status.clone()))).unwrap();
    }

    /// A websocket, or the problem that was answered instead.
    pub async fn socket(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, (u16, String)> {
        let url = format!("ws://{}/api/v1/workspaces/hello{path}", self.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", TOKEN.parse().unwrap());
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, _)) => Ok(Socket(stream)),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                Err((response.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub fn http(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        berth_http::install_crypto();
        #[expect(clippy::disallowed_methods, reason = "a client of the tests, to loopback")]
        let client = reqwest::Client::new();
        let url = format!("http://{}/api/v1/workspaces/hello{path}", self.address);
        client.request(method, url).header("authorization", TOKEN)
    }
}

/// A client's end.
#[derive(Debug)]
pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    pub async fn control(&mut self, control: &Control) {
        self.send(CONTROL, &serde_json::to_vec(control).unwrap()).await;
    }

    /// The next message: channel and bytes; none at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let wait = std::time::Duration::from_secs(10);
        loop {
            match tokio::time::timeout(wait, self.0.next()).await.unwrap_or_else(|_| panic!("nothing came in time")) {
                Some(Ok(Message::Binary(bytes))) => return Some((bytes[0], bytes[1..].to_vec())),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub async fn expect_control(&mut self) -> Control {
        let (channel, bytes) = self.next().await.unwrap();
        assert_eq!(channel, CONTROL, "{}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap()
    }
}

async fn authorize(
    State(peers): State<Arc<Peers>>,
    Json(question): Json<Authorize>,
) -> Result<Json<Authorized>, Problem> {
    if question.authorization.as_deref() != Some(TOKEN) {
        return Err(Problem::unauthorized("sign in"));
    }
    if question.workspace != "hello" || !peers.allowed.load(Ordering::SeqCst) {
        return Err(Problem::not_found("there is no such workspace"));
    }
    if question.uncounted && peers.counted.fetch_add(1, Ordering::SeqCst) >= peers.allowance.load(Ordering::SeqCst) {
        return Err(Problem::too_many_requests(1));
    }
    match question.act {
        None => peers.asked.lock().unwrap().push(question.action),
        Some(_) if !peers.logs_acts.load(Ordering::SeqCst) => return Err(Problem::unavailable("the disk is full")),
        Some(act) => peers.acts.lock().unwrap().push(act),
    }
    let status = peers.status.lock().unwrap().clone();
    Ok(Json(Authorized {
        user_id: peers.user,
        actor: "anna@example.com".to_owned(),
        credential: "local".to_owned(),
        workspace_id: peers.workspace,
        workspace_name: "hello".to_owned(),
        instance_id: Some(peers.instance),
        phase: status.phase,
        node: status.node,
    }))
}

async fn watch(State(peers): State<Arc<Peers>>) -> impl IntoResponse {
    let news = peers.news.subscribe();
    let status = peers.status.lock().unwrap().clone();
    let list = [InstanceEvent::Status(Box::new(status)), InstanceEvent::Synced];
    let news = futures::stream::unfold(news, |mut news| async move { Some((news.recv().await.ok()?, news)) });
    sse::json_stream(futures::stream::iter(list).chain(news))
}

async fn activity(State(peers): State<Arc<Peers>>, Path(id): Path<InstanceId>) {
    assert_eq!(id, peers.instance);
    peers.activity.fetch_add(1, Ordering::SeqCst);
}

async fn logs(State(peers): State<Arc<Peers>>, request: Request) -> Result<String, Problem> {
    peers.logs_asked.fetch_add(1, Ordering::SeqCst);
    if peers.status.lock().unwrap().phase < Phase::Initializing {
        return Err(Problem::not_found("the node one has no logs of it"));
    }
    Ok(format!("log of {}\n", request.uri()))
}

async fn supervisor(State(peers): State<Arc<Peers>>, request: Request) -> Result<Response, Problem> {
    berth_http::upgrade::accept(request, "berth-supervisor", move |stream| async move {
        let real = peers.real.lock().unwrap().clone();
        if let Some(path) = real {
            let socket = tokio::net::UnixStream::connect(path).await.unwrap();
            return berth_http::relay(stream, socket).await;
        }
        let mut supervisor = Supervisor { stream, reader: wire::FrameReader::new(), peers };
        // A client that hangs up ends it.
        supervisor.serve().await;
    })
}

/// berth-init, as far as the tests ask.
struct Supervisor {
    stream: Upgraded,
    reader: wire::FrameReader,
    peers: Arc<Peers>,
}

impl Supervisor {
    async fn frame(&mut self) -> Option<wire::Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.reader.push(&buffer[..count]),
            }
        }
    }

    async fn json<T: serde::Serialize>(&mut self, value: &T) {
        let mut out = Vec::new();
        wire::encode_json(value, &mut out).unwrap();
        self.write(&out).await;
    }

    async fn bytes(&mut self, kind: wire::Kind, bytes: &[u8]) {
        let mut out = Vec::new();
        wire::encode_frame(kind, bytes, &mut out).unwrap();
        self.write(&out).await;
    }

    async fn write(&mut self, out: &[u8]) {
        // A client that has gone is no error of the script.
        self.stream.write_all(out).await.ok();
        self.stream.flush().await.ok();
    }

    fn terminal() -> wire::TerminalInfo {
        wire::TerminalInfo {
            id: "t1".into(),
            name: None,
            argv: vec!["bash".into()],
            pid: 7,
            size: wire::TtySize::default(),
            created_at_ms: 0,
            attached: 0,
            scrollback_bytes: 5,
            state: wire::TerminalState::Running,
        }
    }

    fn port() -> wire::ListeningPort {
        let addresses = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
        wire::ListeningPort { port: 8080, addresses, pid: Some(7), process: Some("python".into()), uid: 0 }
    }

    async fn serve(&mut self) {
        while let Some(frame) = self.frame().await {
            let request: wire::Request = frame.json().unwrap();
            self.peers.requests.lock().unwrap().push(request.clone());
            match request {
                wire::Request::Exec(exec) => self.exec(&exec).await,
                wire::Request::TerminalOpen(_) => self.json(&wire::Reply::Terminal(Self::terminal())).await,
                wire::Request::TerminalList => {
                    self.json(&wire::Reply::Terminals { terminals: vec![Self::terminal()] }).await;
                }
                wire::Request::TerminalClose { .. } => self.json(&wire::Reply::Done).await,
                wire::Request::TerminalAttach { id, .. } if id == "t1" => {
                    self.json(&wire::Reply::Terminal(Self::terminal())).await;
                    self.bytes(wire::Kind::Stdout, b"past\n").await;
                    self.echo().await;
                }
                wire::Request::Tunnel { port: 8080 } => {
                    self.json(&wire::Reply::Connected { input_window: None }).await;
                    self.echo().await;
                }
                wire::Request::Tunnel { port } => {
                    let message = format!("nothing listens on port {port}");
                    self.json(&wire::Reply::Error { code: wire::ErrorCode::ConnectionRefused, message }).await;
                }
                wire::Request::PortsList => self.json(&wire::Reply::Ports { ports: vec![Self::port()] }).await,
                wire::Request::PortsWatch => {
                    self.json(&wire::Reply::Ports { ports: Vec::new() }).await;
                    self.json(&wire::Event::Ports { ports: vec![Self::port()] }).await;
                    while self.frame().await.is_some() {}
                }
                wire::Request::Stat { path, .. } => self.stat(path).await,
                wire::Request::CopyOut(copy) => {
                    self.json(&wire::Reply::Ready).await;
                    self.bytes(wire::Kind::Stdout, b"tar of ").await;
                    self.bytes(wire::Kind::Stdout, copy.path.as_bytes()).await;
                    self.bytes(wire::Kind::Stdout, b"").await;
                    if copy.path == "/folder" {
                        let message = "1 of the files could not be read".to_owned();
                        self.json(&wire::Event::Failed { code: wire::ErrorCode::PermissionDenied, message }).await;
                    } else {
                        self.json(&wire::Event::Done).await;
                    }
                }
                wire::Request::CopyIn(copy) => self.copy_in(&copy).await,
                _ => {
                    let message = "not in this script".to_owned();
                    self.json(&wire::Reply::Error { code: wire::ErrorCode::NotFound, message }).await;
                }
            }
        }
    }

    async fn exec(&mut self, exec: &wire::Exec) {
        match exec.argv[0].as_str() {
            "cat" => {
                self.json(&wire::Reply::Started { pid: 7, input_window: None }).await;
                self.echo().await;
            }
            "sleep" => {
                self.json(&wire::Reply::Started { pid: 7, input_window: None }).await;
                while self.frame().await.is_some() {}
            }
            "yes" => {
                self.json(&wire::Reply::Started { pid: 7, input_window: None }).await;
                let mut out = Vec::new();
                wire::encode_frame(wire::Kind::Stdout, &[b'y'; 64 * 1024], &mut out).unwrap();
                let mut sent = 0;
                while self.stream.write_all(&out).await.is_ok() {
                    sent += out.len();
                    self.peers.files.lock().unwrap().insert("yes".into(), sent.to_le_bytes().to_vec());
                }
            }
            missing => {
                let message = format!("there is no program {missing}");
                self.json(&wire::Reply::Error { code: wire::ErrorCode::NotFound, message }).await;
            }
        }
    }

    /// Sends everything back; controls and the end of input come back as text.
    async fn echo(&mut self) {
        while let Some(frame) = self.frame().await {
            match frame.kind {
                wire::Kind::Json => {
                    let control: wire::Control = frame.json().unwrap();
                    self.bytes(wire::Kind::Stderr, format!("{control:?}").as_bytes()).await;
                }
                wire::Kind::Stdin if frame.payload.is_empty() => {
                    self.json(&wire::Event::Exited(wire::ExitStatus::Code(3))).await;
                }
                wire::Kind::Data => self.bytes(wire::Kind::Data, &frame.payload).await,
                _ => self.bytes(wire::Kind::Stdout, &frame.payload).await,
            }
        }
    }

    async fn stat(&mut self, path: String) {
        let file_type = match path.as_str() {
            "/folder" | "." => wire::FileType::Directory,
            "/file" => wire::FileType::File,
            _ => {
                let message = format!("there is nothing at {path}");
                self.json(&wire::Reply::Error { code: wire::ErrorCode::NotFound, message }).await;
                // A refusal ends a connection.
                self.stream.shutdown().await.ok();
                return;
            }
        };
        let info = wire::FileInfo {
            path,
            file_type,
            size_bytes: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified_at_ms: 0,
            truncated: false,
        };
        self.json(&wire::Reply::File(info)).await;
    }

    async fn copy_in(&mut self, copy: &wire::CopyIn) {
        self.json(&wire::Reply::Ready).await;
        let mut content = Vec::new();
        while let Some(frame) = self.frame().await.filter(|frame| !frame.payload.is_empty()) {
            content.extend(frame.payload);
        }
        let name = format!("{}|{}", copy.path, copy.rename_to.clone().unwrap_or_default());
        self.peers.files.lock().unwrap().insert(name, content);
        self.json(&wire::Event::Done).await;
    }
}
