//! ws-manager, as far as api asks it, with switches for bad days.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use berth_api_types::internal::{Class, InstanceEvent, InstanceStatus, SetTimeout, StartInstance, StopInstance};
use berth_api_types::public::{Phase, Step};
use berth_clock::{Clock as _, SystemClock};
use berth_http::sse::json_stream;
use berth_http::{Json, Path, Problem};
use berth_ids::{InstanceId, WorkspaceId};
use tokio::sync::broadcast;

/// What a start leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It runs.
    #[default]
    Runs,
    /// It stays Pending until the test says more.
    Hangs,
    /// 422.
    Refuses,
    /// 503 to everything.
    Down,
}

#[derive(Default)]
struct Inner {
    mood: Mood,
    version: u64,
    instances: BTreeMap<InstanceId, InstanceStatus>,
    starts: Vec<StartInstance>,
    stops: Vec<(InstanceId, StopInstance)>,
    timeouts: Vec<(InstanceId, u32)>,
    wiped: BTreeSet<WorkspaceId>,
    unwipeable: BTreeSet<WorkspaceId>,
    deleted: Vec<InstanceId>,
}

#[derive(Clone)]
pub(crate) struct WsManager {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<InstanceEvent>,
}

impl Default for WsManager {
    fn default() -> Self {
        Self { inner: Arc::default(), events: broadcast::Sender::new(1024) }
    }
}

impl WsManager {
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/internal/classes", get(classes))
            .route("/internal/instances", post(start).get(list))
            .route("/internal/instances/watch", get(watch))
            .route("/internal/instances/{id}/stop", post(stop))
            .route("/internal/instances/{id}/timeout", put(timeout))
            .route("/internal/instances/{id}", delete(forget))
            .route("/internal/disks/{id}", delete(wipe))
            .with_state(self.clone())
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub(crate) fn starts(&self) -> Vec<StartInstance> {
        self.inner.lock().unwrap().starts.clone()
    }

    pub(crate) fn stops(&self) -> Vec<(InstanceId, StopInstance)> {
        self.inner.lock().unwrap().stops.clone()
    }

    pub(crate) fn timeouts(&self) -> Vec<(InstanceId, u32)> {
        self.inner.lock().unwrap().timeouts.clone()
    }

    pub(crate) fn wiped(&self, id: WorkspaceId) -> bool {
        self.inner.lock().unwrap().wiped.contains(&id)
    }

    /// From now on this disk cannot be wiped.
    pub(crate) fn refuse_to_wipe(&self, id: WorkspaceId) {
        self.inner.lock().unwrap().unwipeable.insert(id);
    }

    /// As if every disk were there again.
    pub(crate) fn forget_wiping(&self) {
        self.inner.lock().unwrap().wiped.clear();
    }

    /// Instances that api told it to forget.
    pub(crate) fn forgotten(&self) -> Vec<InstanceId> {
        self.inner.lock().unwrap().deleted.clone()
    }

    /// Says something new of an instance.
    pub(crate) fn say(&self, id: InstanceId, change: impl FnOnce(&mut InstanceStatus)) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        let version = inner.version;
        let status = inner.instances.get_mut(&id).unwrap();
        status.version = version;
        change(status);
        let status = status.clone();
        let _ = self.events.send(InstanceEvent::Status(Box::new(status)));
    }

    /// Says something of an instance without keeping it: a late or foreign word.
    pub(crate) fn whisper(&self, status: InstanceStatus) {
        let _ = self.events.send(InstanceEvent::Status(Box::new(status)));
    }

    pub(crate) fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        self.inner.lock().unwrap().instances.get(&id).cloned()
    }

    /// The object vanishes without a last word.
    pub(crate) fn lose(&self, id: InstanceId) {
        self.inner.lock().unwrap().instances.remove(&id);
        let _ = self.events.send(InstanceEvent::Gone { instance_id: id });
    }

    /// The object vanishes, and nobody says so.
    pub(crate) fn lose_silently(&self, id: InstanceId) {
        self.inner.lock().unwrap().instances.remove(&id);
    }

    fn mood_now(&self) -> Mood {
        self.inner.lock().unwrap().mood
    }

    fn check(&self) -> Result<(), Problem> {
        if self.mood_now() == Mood::Down { Err(Problem::unavailable("down")) } else { Ok(()) }
    }
}

fn class(name: &str) -> Class {
    Class {
        name: name.into(),
        display_name: name.into(),
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 33,
        pids: 1000,
        io_bytes_per_second: None,
        no_new_privileges: false,
        credits_per_hour: "1".into(),
    }
}

async fn classes(State(fake): State<WsManager>) -> Result<Json<Vec<Class>>, Problem> {
    fake.check()?;
    Ok(Json(vec![class("small"), class("large")]))
}

fn steps() -> Vec<Step> {
    let now = SystemClock.now();
    vec![Step {
        name: "ready".into(),
        started_at: now,
        duration_us: Some(1000),
        detail: String::new(),
        phases: Vec::new(),
    }]
}

async fn start(State(fake): State<WsManager>, Json(start): Json<StartInstance>) -> Result<Response, Problem> {
    fake.check()?;
    let id = start.instance_id;
    let mood = fake.mood_now();
    if mood == Mood::Refuses {
        return Err(Problem::unprocessable("no_room", "no machine has room for this class: try a smaller one"));
    }
    let known = fake.inner.lock().unwrap().instances.contains_key(&id);
    fake.inner.lock().unwrap().starts.push(start.clone());
    if !known {
        let status = InstanceStatus {
            instance_id: id,
            workspace_id: start.workspace_id,
            owner_id: start.owner_id,
            version: 0,
            phase: Phase::Pending,
            reason: String::new(),
            failed: false,
            node: None,
            image_digest: None,
            resources: None,
            steps: Vec::new(),
            started_at: None,
            stopped_at: None,
            last_activity: None,
            timeout_warning: None,
        };
        fake.inner.lock().unwrap().instances.insert(id, status);
        fake.say(id, |_| {});
        if mood == Mood::Runs {
            fake.say(id, |status| status.phase = Phase::Creating);
            fake.say(id, |status| {
                status.phase = Phase::Running;
                status.node = Some("node-1".into());
                status.started_at = Some(SystemClock.now());
                status.steps = steps();
            });
        }
    }
    Ok((StatusCode::ACCEPTED, Json(fake.status(id))).into_response())
}

async fn stop(
    State(fake): State<WsManager>,
    Path(id): Path<InstanceId>,
    Json(body): Json<StopInstance>,
) -> Result<StatusCode, Problem> {
    fake.check()?;
    fake.inner.lock().unwrap().stops.push((id, body.clone()));
    let Some(status) = fake.status(id) else { return Err(Problem::not_found("no such instance")) };
    if status.phase != Phase::Stopped {
        fake.say(id, |status| status.phase = Phase::Stopping);
        if fake.mood_now() == Mood::Runs {
            fake.say(id, |status| {
                status.phase = Phase::Stopped;
                status.reason = body.reason;
                status.stopped_at = Some(SystemClock.now());
            });
        }
    }
    Ok(StatusCode::ACCEPTED)
}

async fn timeout(
    State(fake): State<WsManager>,
    Path(id): Path<InstanceId>,
    Json(body): Json<SetTimeout>,
) -> Result<StatusCode, Problem> {
    fake.check()?;
    fake.inner.lock().unwrap().timeouts.push((id, body.inactivity_seconds));
    Ok(StatusCode::NO_CONTENT)
}

async fn list(State(fake): State<WsManager>) -> Result<Json<Vec<InstanceStatus>>, Problem> {
    fake.check()?;
    Ok(Json(fake.inner.lock().unwrap().instances.values().cloned().collect()))
}

async fn watch(State(fake): State<WsManager>) -> Result<Response, Problem> {
    fake.check()?;
    let receiver = fake.events.subscribe();
    let mut first: Vec<InstanceEvent> = fake
        .inner
        .lock()
        .unwrap()
        .instances
        .values()
        .map(|status| InstanceEvent::Status(Box::new(status.clone())))
        .collect();
    first.push(InstanceEvent::Synced);
    let news = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.ok().map(|event| (event, receiver))
    });
    let events = futures::StreamExt::chain(futures::stream::iter(first), news);
    Ok(json_stream(events).into_response())
}

async fn forget(State(fake): State<WsManager>, Path(id): Path<InstanceId>) -> Result<StatusCode, Problem> {
    fake.check()?;
    let mut inner = fake.inner.lock().unwrap();
    let Some(status) = inner.instances.remove(&id) else { return Err(Problem::not_found("no such instance")) };
    assert_eq!(status.phase, Phase::Stopped, "only what is over is forgotten");
    inner.deleted.push(id);
    drop(inner);
    let _ = fake.events.send(InstanceEvent::Gone { instance_id: id });
    Ok(StatusCode::NO_CONTENT)
}

async fn wipe(State(fake): State<WsManager>, Path(id): Path<WorkspaceId>) -> Result<StatusCode, Problem> {
    fake.check()?;
    let mut inner = fake.inner.lock().unwrap();
    if inner.unwipeable.contains(&id) {
        return Err(Problem::unavailable("the node is away"));
    }
    inner.wiped.insert(id);
    Ok(StatusCode::NO_CONTENT)
}
