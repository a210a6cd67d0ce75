//! The node agent's internal routes.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use berth_http::{Json, Path, Problem, Query, sse};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_stream::wrappers::WatchStream;

use super::{Inner, machine};
use crate::instance::Instance;

/// `GET /internal/node`: what the machine has and does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Processors.
    pub processors: usize,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// What limits of workspaces may add up to.
    pub memory_capacity_bytes: u64,
    /// What limits of running workspaces add up to.
    pub memory_given_bytes: u64,
    /// Memory that is free now.
    pub memory_free_bytes: u64,
    /// Size of the file system with the disks.
    pub disk_bytes: u64,
    /// Free on it now.
    pub disk_free_bytes: u64,
    /// Below this nothing new starts.
    pub disk_watermark_bytes: u64,
    /// Workspaces that have a place.
    pub running: usize,
    /// Instances that wait for one, in order.
    pub queue: Vec<String>,
    /// Disks on the node, with the bytes that each costs.
    pub disks: Vec<DiskUsage>,
}

/// One disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Workspace.
    pub workspace_id: String,
    /// Size of its file system.
    pub size_bytes: u64,
    /// Bytes of the host that it costs.
    pub used_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    #[serde(default)]
    follow: bool,
    /// Bytes before the end to begin at; all when absent.
    #[serde(default)]
    tail: Option<u64>,
}

/// The routes.
pub(super) fn router(agent: Arc<Inner>) -> Router {
    Router::new()
        .route("/internal/node", get(status))
        .route("/internal/instances/{id}/supervisor", get(supervisor))
        .route("/internal/instances/{id}/logs", get(logs))
        .route("/internal/instances/{id}/steps", get(steps))
        .with_state(agent)
}

async fn status(State(agent): State<Arc<Inner>>) -> Json<NodeStatus> {
    let capacity = agent.admission.capacity();
    let (given, running, queue) = agent.admission.usage();
    let free = machine::free(agent.node.disks());
    let disks = agent.node.disks().list();
    Json(NodeStatus {
        name: agent.name.clone(),
        processors: machine::processors(),
        memory_bytes: machine::memory_bytes(),
        memory_capacity_bytes: capacity.memory_bytes,
        memory_given_bytes: given,
        memory_free_bytes: free.memory_bytes,
        disk_bytes: capacity.disk_bytes,
        disk_free_bytes: free.disk_bytes,
        disk_watermark_bytes: capacity.min_free_disk_bytes,
        running,
        queue,
        disks: disks
            .into_iter()
            .map(|(workspace_id, record, used_bytes)| DiskUsage {
                workspace_id,
                size_bytes: record.size_bytes,
                used_bytes,
            })
            .collect(),
    })
}

fn running(agent: &Inner, id: &str) -> Result<Arc<Instance>, Problem> {
    let instance = agent.node.instance(id).filter(|instance| instance.ended().is_none());
    instance.ok_or_else(|| Problem::not_found(format!("the instance {id} does not run on the node {}", agent.name)))
}

/// The raw bytes of the supervisor's socket.
async fn supervisor(
    State(agent): State<Arc<Inner>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let instance = running(&agent, &id)?;
    // Connected before the answer: who gets 101 has a supervisor.
    let socket = crate::supervisor::connect(&instance.folder).await.map_err(|error| {
        Problem::unavailable(format!("the supervisor of the instance {id} does not answer")).with_source(error)
    })?;
    berth_http::upgrade::accept(request, "berth-supervisor", move |client| berth_http::relay(client, socket))
}

async fn steps(State(agent): State<Arc<Inner>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let steps = agent
        .steps_of(&id)
        .ok_or_else(|| Problem::not_found(format!("no start of the instance {id} is under way here")))?;
    Ok(sse::json_stream(WatchStream::new(steps.subscribe())).into_response())
}

/// The container's output: the kept part, and what comes while it runs.
async fn logs(
    State(agent): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let instance = agent.node.instance(&id);
    let instance = instance
        .ok_or_else(|| Problem::not_found(format!("the node {} has no logs of the instance {id}", agent.name)))?;
    let follower =
        Follower::open(instance.folder.clone(), query.tail.unwrap_or(u64::MAX)).map_err(Problem::internal)?;
    let stream = futures::stream::unfold(
        (follower, instance, query.follow),
        |(mut follower, instance, follow)| async move {
            loop {
                let over = instance.ended().is_some();
                match follower.next_piece() {
                    Ok(Some(piece)) => return Some((Ok::<_, std::io::Error>(piece), (follower, instance, follow))),
                    Ok(None) if !follow || over => return None,
                    Ok(None) => {
                        let mut ended = std::pin::pin!(instance.wait_ended());
                        tokio::select! {
                            changed = follower.changed() => if let Err(error) = changed { return Some((Err(error), (follower, instance.clone(), false))) },
                            _ = &mut ended => {}
                        }
                    }
                    Err(error) => return Some((Err(error), (follower, instance, false))),
                }
            }
        },
    );
    Ok(([(axum::http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream.boxed()))
        .into_response())
}

/// Reads a log that grows and is rotated.
struct Follower {
    folder: PathBuf,
    /// What is left of the older half.
    old: Option<std::fs::File>,
    file: Option<std::fs::File>,
    watch: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

const PIECE: usize = 64 * 1024;

impl Follower {
    fn open(folder: PathBuf, tail: u64) -> std::io::Result<Self> {
        use rustix::fs::inotify;
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        // Watched before it is read, so that nothing in between is missed.
        inotify::add_watch(
            &watch,
            &folder,
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
        )?;
        let watch = crate::instance::readiness(watch)?;
        let mut file = std::fs::File::open(folder.join(berth_sandbox::monitor::LOG_FILE)).ok();
        let mut old = std::fs::File::open(folder.join(berth_sandbox::monitor::OLD_LOG_FILE)).ok();
        let length = |file: &Option<std::fs::File>| {
            file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len())
        };
        let (newer, older) = (length(&file), length(&old));
        if let Some(file) = &mut file {
            file.seek(SeekFrom::Start(newer.saturating_sub(tail)))?;
        }
        let rest = tail.saturating_sub(newer);
        if let Some(old) = &mut old {
            old.seek(SeekFrom::Start(older.saturating_sub(rest)))?;
        }
        Ok(Self { folder, old, file, watch })
    }

    fn next_piece(&mut self) -> std::io::Result<Option<Bytes>> {
        let mut buffer = vec![0; PIECE];
        if let Some(old) = &mut self.old {
            let count = old.read(&mut buffer)?;
            if count > 0 {
                buffer.truncate(count);
                return Ok(Some(buffer.into()));
            }
            self.old = None;
        }
        let path = self.folder.join(berth_sandbox::monitor::LOG_FILE);
        if self.file.is_none() {
            self.file = std::fs::File::open(&path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        let count = file.read(&mut buffer)?;
        if count > 0 {
            buffer.truncate(count);
            return Ok(Some(buffer.into()));
        }
        // At the end: was it rotated under us?
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (a.dev(), a.ino()) == (b.dev(), b.ino())
        };
        if let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::metadata(&path))
            && !same(&ours, &there)
        {
            self.file = Some(std::fs::File::open(&path)?);
            return self.next_piece();
        }
        Ok(None)
    }

    async fn changed(&self) -> std::io::Result<()> {
        let mut guard = self.watch.readable().await?;
        // What happened does not matter: the file is read again.
        let mut events = [0; 4096];
        while rustix::io::read(self.watch.get_ref(), &mut events[..]).is_ok_and(|count| count > 0) {}
        guard.clear_ready();
        Ok(())
    }
}
