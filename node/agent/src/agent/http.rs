//! The node agent's internal routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use berth_http::{Path, Problem, Query};
use futures::StreamExt as _;
use serde::Deserialize;

use super::Inner;
use super::log::Follower;
use crate::instance::Instance;

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
        .route("/internal/instances/{id}/supervisor", get(supervisor))
        .route("/internal/instances/{id}/logs", get(logs))
        .with_state(agent)
}

fn running(agent: &Inner, id: &str) -> Result<Arc<Instance>, Problem> {
    let instance = agent.node.instance(id).filter(|instance| instance.ended().is_none());
    instance.ok_or_else(|| not_running(agent, id))
}

fn not_running(agent: &Inner, id: &str) -> Problem {
    Problem::not_found(format!("the instance {id} does not run on the node {}", agent.name))
}

/// Longest time from when a container's supervisor takes no connection any more until its end is known.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The raw bytes of the supervisor's socket.
async fn supervisor(
    State(agent): State<Arc<Inner>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let instance = running(&agent, &id)?;
    // Connected before the answer: whoever gets 101 has a supervisor.
    let socket = match crate::supervisor::connect(&instance.folder).await {
        Ok(socket) => socket,
        // Whose supervisor is gone is about to end, which is no fault: who asks hears the same a moment later.
        Err(error) => {
            return Err(match tokio::time::timeout(END_TIMEOUT, instance.wait_ended()).await {
                Ok(_) => not_running(&agent, &id),
                Err(_) => Problem::unavailable(format!("the supervisor of the instance {id} does not answer"))
                    .with_source(error),
            });
        }
    };
    berth_http::upgrade::accept(request, "berth-supervisor", move |client| berth_http::relay(client, socket))
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
