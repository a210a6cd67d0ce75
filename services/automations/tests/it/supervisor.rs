//! A workspace's supervisor at the protocol's edge: files from a map, units as processes of `sh`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Request as HttpRequest};
use axum::routing::get;
use berth_http::Upgraded;
use berth_supervisor_client::protocol::{
    ErrorCode, Event, ExitStatus, FileInfo, FileType, Frame, FrameReader, Kind, Reply, Request, UnitKind, UnitSpec,
    UnitState, UnitStatus, encode_frame, encode_json,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

#[derive(Clone)]
struct Unit {
    spec: UnitSpec,
    status: UnitStatus,
    log: Vec<u8>,
    stop: Arc<tokio::sync::Notify>,
}

/// The workspace: it lives on when the service under test does not.
pub(crate) struct Workspace {
    pub(crate) files: Mutex<BTreeMap<String, String>>,
    units: Mutex<BTreeMap<String, Unit>>,
    /// Grows with every change of a unit.
    version: watch::Sender<u64>,
    /// Refuses connections while it is true.
    pub(crate) away: watch::Sender<bool>,
    /// How many connections it refused.
    refused: watch::Sender<u64>,
    /// How often its units were listed.
    listed: AtomicU64,
}

impl Workspace {
    pub(crate) fn new(files: &[(&str, &str)]) -> Arc<Self> {
        Arc::new(Self {
            files: Mutex::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()),
            units: Mutex::default(),
            version: watch::channel(0).0,
            away: watch::channel(false).0,
            refused: watch::channel(0).0,
            listed: AtomicU64::new(0),
        })
    }

    /// How often a unit was started.
    pub(crate) fn runs(&self, id: &str) -> u64 {
        self.units.lock().unwrap().get(id).map_or(0, |unit| unit.status.run)
    }

    /// How often its units were listed.
    pub(crate) fn listed(&self) -> u64 {
        self.listed.load(Ordering::Relaxed)
    }

    /// How many connections it has refused.
    pub(crate) fn refused(&self) -> u64 {
        *self.refused.borrow()
    }

    /// Waits until it has refused so many.
    pub(crate) async fn refuses(&self, count: u64) {
        self.refused.subscribe().wait_for(|refused| *refused >= count).await.unwrap();
    }

    /// The node agent's way to it.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let workspace = Arc::clone(self);
        Router::new().route(
            "/internal/instances/{instance}/supervisor",
            get(move |Path(_instance): Path<String>, request: HttpRequest| {
                let workspace = Arc::clone(&workspace);
                async move {
                    if *workspace.away.borrow() {
                        workspace.refused.send_modify(|refused| *refused += 1);
                        return Err(berth_http::Problem::unavailable("away"));
                    }
                    berth_http::upgrade::accept(request, "berth-supervisor", move |stream| async move {
                        let mut away = workspace.away.subscribe();
                        tokio::select! {
                            () = serve(workspace, stream) => {}
                            _ = away.wait_for(|away| *away) => {}
                        }
                    })
                }
            }),
        )
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Unit)) {
        let mut units = self.units.lock().unwrap();
        if let Some(unit) = units.get_mut(id) {
            change(unit);
            self.version.send_modify(|version| {
                *version += 1;
                unit.status.version = *version;
            });
        }
    }

    fn all(&self) -> Vec<UnitStatus> {
        self.units.lock().unwrap().values().map(|unit| unit.status.clone()).collect()
    }

    fn start(self: &Arc<Self>, spec: UnitSpec) -> Reply {
        let mut units = self.units.lock().unwrap();
        let before = units.get(&spec.id);
        if let Some(unit) = before.filter(|unit| !unit.status.state.is_final()) {
            return if unit.spec == spec {
                Reply::Unit(unit.status.clone())
            } else {
                Reply::Error { code: ErrorCode::Conflict, message: "it runs with another specification".to_owned() }
            };
        }
        let status = UnitStatus {
            id: spec.id.clone(),
            kind: spec.kind,
            state: if spec.kind == UnitKind::Service && spec.ready.is_some() {
                UnitState::Starting
            } else {
                UnitState::Running
            },
            run: before.map_or(0, |unit| unit.status.run) + 1,
            version: 0,
            pid: None,
            exit: None,
            message: None,
            started_at_ms: 0,
            ready_at_ms: None,
            finished_at_ms: None,
            outputs: BTreeMap::new(),
        };
        let unit = Unit { spec: spec.clone(), status: status.clone(), log: vec![], stop: Arc::default() };
        let stop = Arc::clone(&unit.stop);
        units.insert(spec.id.clone(), unit);
        drop(units);
        self.change(&spec.id, |_| {});
        tokio::spawn(run(Arc::clone(self), spec, stop));
        Reply::Unit(status)
    }
}

async fn run(workspace: Arc<Workspace>, spec: UnitSpec, stop: Arc<tokio::sync::Notify>) {
    let outputs = tempfile::NamedTempFile::new().unwrap();
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &spec.command])
        .env("BERTH_OUTPUT", outputs.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (reader, id) = (Arc::clone(&workspace), spec.id.clone());
    let output = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            reader.change(&id, |unit| unit.log.extend_from_slice(&buffer[..count]));
        }
    });
    let ready = async {
        let Some(ready) = &spec.ready else { return };
        while !tokio::process::Command::new("sh").args(["-c", ready]).status().await.unwrap().success() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        workspace.change(&spec.id, |unit| unit.status.state = UnitState::Running);
    };
    let mut ready = Box::pin(ready);
    let mut is_ready = false;
    let (status, stopped) = loop {
        tokio::select! {
            status = child.wait() => break (status.unwrap(), false),
            () = stop.notified() => {
                if let Some(stop) = &spec.stop {
                    workspace.change(&spec.id, |unit| unit.status.state = UnitState::Stopping);
                    tokio::process::Command::new("sh").args(["-c", stop]).status().await.unwrap();
                }
                child.start_kill().unwrap();
                break (child.wait().await.unwrap(), true);
            }
            () = &mut ready, if !is_ready => is_ready = true,
        }
    };
    drop(output.await);
    let outputs: BTreeMap<String, String> = std::fs::read_to_string(outputs.path())
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    workspace.change(&spec.id, |unit| {
        unit.status.exit = Some(match status.code() {
            Some(code) => ExitStatus::Code(code),
            None => ExitStatus::Signal(9),
        });
        unit.status.outputs = outputs;
        unit.status.state = match (stopped, status.success(), spec.kind) {
            (true, _, _) | (false, true, UnitKind::Service) => UnitState::Stopped,
            (false, true, UnitKind::Task) => UnitState::Succeeded,
            (false, false, _) => UnitState::Failed,
        };
    });
}

struct Connection {
    stream: Upgraded,
    reader: FrameReader,
}

impl Connection {
    async fn json(&mut self, value: &impl serde::Serialize) -> std::io::Result<()> {
        let mut out = Vec::new();
        encode_json(value, &mut out).unwrap();
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    async fn stdout(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = Vec::new();
        encode_frame(Kind::Stdout, bytes, &mut out).unwrap();
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(count @ 1..) => self.reader.push(&buffer[..count]),
                _ => return None,
            }
        }
    }
}

async fn serve(workspace: Arc<Workspace>, stream: Upgraded) {
    let mut connection = Connection { stream, reader: FrameReader::new() };
    while let Some(frame) = connection.frame().await {
        let request: Request = frame.json().unwrap();
        if answer(&workspace, &mut connection, request).await.is_err() {
            return;
        }
    }
}

async fn answer(workspace: &Arc<Workspace>, connection: &mut Connection, request: Request) -> std::io::Result<()> {
    let missing = Reply::Error { code: ErrorCode::NotFound, message: "there is none".to_owned() };
    match request {
        Request::ReadFile { path, max_bytes, .. } => {
            let text = workspace.files.lock().unwrap().get(&path).cloned();
            let Some(text) = text else { return connection.json(&missing).await };
            let limit = usize::try_from(max_bytes).unwrap();
            let info = FileInfo {
                path,
                file_type: FileType::File,
                size_bytes: u64::try_from(text.len()).unwrap(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                modified_at_ms: 0,
                truncated: text.len() > limit,
            };
            connection.json(&Reply::File(info)).await?;
            for piece in text.as_bytes()[..text.len().min(limit)].chunks(1 << 16) {
                connection.stdout(piece).await?;
            }
            connection.stdout(&[]).await
        }
        Request::UnitList => {
            workspace.listed.fetch_add(1, Ordering::Relaxed);
            connection.json(&Reply::Units { units: workspace.all() }).await
        }
        Request::UnitStart(spec) => {
            let reply = workspace.start(spec);
            connection.json(&reply).await
        }
        Request::UnitStop { id } => {
            let unit = workspace.units.lock().unwrap().get(&id).cloned();
            let Some(mut unit) = unit else { return connection.json(&missing).await };
            if !unit.status.state.is_final() {
                workspace.change(&id, |unit| unit.status.state = UnitState::Stopping);
                unit.stop.notify_one();
                unit.status.state = UnitState::Stopping;
            }
            connection.json(&Reply::Unit(unit.status)).await
        }
        Request::UnitWatch => {
            let mut version = workspace.version.subscribe();
            let mut seen = *version.borrow_and_update();
            connection.json(&Reply::Units { units: workspace.all() }).await?;
            loop {
                if version.changed().await.is_err() {
                    return Ok(());
                }
                let newest = *version.borrow_and_update();
                for unit in workspace.all().into_iter().filter(|unit| unit.version > seen) {
                    connection.json(&Event::Unit(unit)).await?;
                }
                seen = newest;
            }
        }
        Request::UnitLogs { id, follow, tail_bytes } => {
            let mut version = workspace.version.subscribe();
            let unit = |id: &str| workspace.units.lock().unwrap().get(id).cloned();
            let Some(first) = unit(&id) else { return connection.json(&missing).await };
            connection.json(&Reply::Ready).await?;
            let mut sent = tail_bytes
                .map_or(0, |tail| first.log.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
            loop {
                let Some(unit) = unit(&id) else { return Ok(()) };
                if unit.log.len() > sent {
                    connection.stdout(&unit.log[sent..]).await?;
                    sent = unit.log.len();
                }
                if !follow || unit.status.state.is_final() {
                    return connection.json(&Event::Done).await;
                }
                version.changed().await.unwrap();
            }
        }
        _ => panic!("not asked by this service"),
    }
}
