//! `GET /api/v1/workspaces/{workspace}/tasks/{reference}/logs` and the same for services: from the workspace while it runs, from the database after.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use berth_api_types::automations::AutomationPhase;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Path, Problem, ProblemBody, ProblemResponse, Query, Upgraded};
use berth_ids::{InstanceId, WorkspaceId};
use berth_supervisor_client::protocol::Request;
use berth_supervisor_client::{ClientError, Incoming, SupervisorClient};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;

use crate::State as Service;
use crate::routes::access::Caller;
use crate::routes::of_kind::OfKind;
use crate::store::executions;

/// How much.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// Continue with new output, until the run ends.
    #[serde(default)]
    follow: bool,
    /// At most this many bytes, the last ones.
    tail_bytes: Option<u64>,
}

/// Read the output of a {kind}'s newest run.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/{kinds}/{reference}/logs", operation_id = "{kind}_logs", tag = "automations",
    params(("workspace" = String, Path, description = "Id or name."), ("reference" = String, Path, description = "Its key in the automations file."), LogsQuery),
    responses(
        (status = 200, description = "What the command wrote.", content_type = "text/plain", body = String),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "No such workspace, nothing of that kind and key in it, or it never ran.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(OfKind { state, kind }): State<OfKind>,
    caller: Caller,
    Path((workspace, reference)): Path<(String, String)>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Problem> {
    let authorized = caller.may_in_file(&state, &workspace, WorkspaceAction::Read).await?;
    let id = authorized.workspace_id;
    let mut conn = state.jobs.pool.acquire().await.map_err(Problem::internal)?;
    super::one(&mut conn, id, kind, &reference).await?;
    drop(conn);
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    let source = match source(&state, id, &reference, query).await? {
        Some(source) => source,
        None if query.follow => {
            let changes = state.jobs.changes.subscribe();
            Source::Waiting(Box::new(Waiting { state, workspace: id, reference, query, changes }))
        }
        None => Source::Kept(Bytes::new()),
    };
    let body = Body::from_stream(futures::stream::try_unfold(source, Source::step));
    Ok((headers, body).into_response())
}

/// Where the output is; `None` while the run waits to begin.
async fn source(
    state: &Service,
    workspace: WorkspaceId,
    reference: &str,
    query: LogsQuery,
) -> Result<Option<Source>, Problem> {
    let mut conn = state.jobs.pool.acquire().await.map_err(Problem::internal)?;
    let newest = executions::log(&mut conn, workspace, reference).await.map_err(Problem::internal)?;
    drop(conn);
    let Some((instance, phase, log)) = newest else {
        return Err(Problem::not_found(format!("{reference:?} never ran in this workspace: there is no output")));
    };
    if phase == AutomationPhase::Pending {
        return Ok(None);
    }
    if phase.is_final() {
        let log = log.unwrap_or_default();
        let skip =
            query.tail_bytes.map_or(0, |tail| log.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        return Ok(Some(Source::Kept(Bytes::from(log).slice(skip..))));
    }
    live(state, instance, reference, query).await
}

async fn live(
    state: &Service,
    instance: InstanceId,
    reference: &str,
    query: LogsQuery,
) -> Result<Option<Source>, Problem> {
    let unreachable = |error: &dyn std::error::Error| {
        tracing::info!(%instance, error = %berth_http::problem::chain(error), "the output of a unit cannot be read");
        Problem::unavailable("the workspace cannot be reached: it is starting or stopping; try again")
    };
    let mut supervisor = state.jobs.supervisors.connect(instance).await.map_err(|error| unreachable(&error))?;
    let request = Request::UnitLogs { id: reference.to_owned(), follow: query.follow, tail_bytes: query.tail_bytes };
    match supervisor.request(&request).await {
        Ok(_) => Ok(Some(Source::Live(Box::new(supervisor)))),
        // Recorded as starting, and not begun yet.
        Err(ClientError::Refused { .. }) => Ok(None),
        Err(error) => Err(unreachable(&error)),
    }
}

struct Waiting {
    state: Service,
    workspace: WorkspaceId,
    reference: String,
    query: LogsQuery,
    changes: watch::Receiver<()>,
}

enum Source {
    Kept(Bytes),
    Waiting(Box<Waiting>),
    Live(Box<SupervisorClient<Upgraded>>),
    End,
}

impl Source {
    /// The next bytes, and what follows them.
    async fn step(self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        match self {
            Self::End => Ok(None),
            Self::Kept(bytes) => Ok(Some((bytes, Self::End))),
            Self::Waiting(mut waiting) => {
                // A change from here on is not missed, whatever the look finds.
                waiting.changes.mark_unchanged();
                let found = source(&waiting.state, waiting.workspace, &waiting.reference, waiting.query).await;
                match found.map_err(std::io::Error::other)? {
                    Some(found) => Ok(Some((Bytes::new(), found))),
                    None => {
                        waiting.changes.changed().await.map_err(std::io::Error::other)?;
                        Ok(Some((Bytes::new(), Self::Waiting(waiting))))
                    }
                }
            }
            Self::Live(mut supervisor) => match supervisor.receive().await {
                Ok(Some(Incoming::Bytes(_, bytes))) => Ok(Some((Bytes::from(bytes), Self::Live(supervisor)))),
                // `done`, or the workspace stopped: there is no more.
                Ok(Some(Incoming::Event(_)) | None) | Err(ClientError::Closed) => Ok(None),
                Err(error) => Err(std::io::Error::other(error)),
            },
        }
    }
}
