//! The node agent's internal routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use berth_http::{Json, Path, Problem, Query, sse};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_stream::wrappers::WatchStream;

use super::log::Follower;
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
    /// Upper bound for the sum of the memory limits of workspaces.
    pub memory_capacity_bytes: u64,
    /// Sum of the memory limits of running workspaces.
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
    // Connected before the answer: whoever gets 101 has a supervisor.
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

/// How it started, and the container's output: the kept part, and more as it is written while the container runs. The log of an instance that
/// has ended is there until its workspace's next one ends.
async fn logs(
    State(agent): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let instance = agent.node.instance(&id);
    let folder = match &instance {
        Some(instance) => Some(instance.folder.clone()),
        None => agent.node.disks().kept_log(&id),
    };
    let folder = folder
        .ok_or_else(|| Problem::not_found(format!("the node {} has no logs of the instance {id}", agent.name)))?;
    let follower = Follower::open(folder, query.tail.unwrap_or(u64::MAX)).map_err(Problem::internal)?;
    let stream = futures::stream::unfold(
        (follower, instance, query.follow),
        |(mut follower, instance, follow)| async move {
            loop {
                // The end is looked at before the log is read, so that nothing written last is missed.
                let running = instance.as_ref().filter(|instance| follow && instance.ended().is_none());
                match (follower.next_piece(), running) {
                    (Ok(Some(piece)), _) => {
                        return Some((Ok::<_, std::io::Error>(piece), (follower, instance, follow)));
                    }
                    (Ok(None), None) => return None,
                    (Ok(None), Some(running)) => {
                        let mut ended = std::pin::pin!(running.wait_ended());
                        tokio::select! {
                            changed = follower.changed() => if let Err(error) = changed { return Some((Err(error), (follower, None, false))) },
                            _ = &mut ended => {}
                        }
                    }
                    (Err(error), _) => return Some((Err(error), (follower, None, false))),
                }
            }
        },
    );
    Ok(([(axum::http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream.boxed()))
        .into_response())
}
