//! `GET /api/v1/workspaces/watch` and `GET /api/v1/workspaces/{workspace}/watch`.
//!
//! A watcher first lists; it is then told of each change and reads the current state of the workspace, so that what it sends is never older
//! than what it sent before. Each time it checks whether the caller may still see the workspace, and twice a minute whether their credentials
//! are still valid.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::WorkspaceEvent;
use berth_authz::{Authenticated, Authorized, Presented, Principal};
use berth_http::sse::json_stream;
use berth_http::{Path, Problem, Query};
use berth_ids::WorkspaceId;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};

use super::list::{ScopeQuery, scope};
use super::load;
use crate::changes::Change;
use crate::domain::authorize::ReadWorkspace;
use crate::domain::workspace::Workspace;
use crate::http::caller::Caller;
use crate::state::Api;
use crate::store;
use crate::store::workspaces::{ListFilter, ListScope};

/// Events queued for a slow client; beyond that the watcher waits, and then reads everything anew.
const QUEUE: usize = 64;
/// Workspaces read at once.
const PAGE: i64 = 200;
/// How often the credentials are checked again.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// The credentials that the client presented: they are checked again while the stream lives.
pub(in crate::routes) struct Shown(Presented);

impl<S: Send + Sync> FromRequestParts<S> for Shown {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Presented::from_parts(parts).map(Self)
    }
}

enum Subject {
    One(WorkspaceId),
    Many(ListScope),
}

/// Follows many workspaces by server-sent events: each one as it is, then `synced`, then each change.
///
/// Every connection begins so, also one that is made again: events have no ids, and `Last-Event-ID` is not read. What a client knew and does
/// not hear of before `synced` is gone.
#[utoipa::path(
    get, path = "/api/v1/workspaces/watch", tag = "workspaces", operation_id = "watch_workspaces", params(ScopeQuery),
    responses(
        (status = 200, body = WorkspaceEvent, content_type = "text/event-stream"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn watch_all(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    shown: Shown,
    caller: Caller,
    Query(query): Query<ScopeQuery>,
) -> Result<Response, Problem> {
    let scope = scope(&api, &principal, &caller, &query).await?;
    Ok(stream(api, principal, shown, Subject::Many(scope)))
}

/// Follows one workspace by server-sent events: as it is, then `synced`, then each change; the stream ends when it is deleted.
///
/// Every connection begins like this, also after a reconnect: events have no ids, and `Last-Event-ID` is not read.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/watch", tag = "workspaces", operation_id = "watch_workspace",
    params(("workspace" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = WorkspaceEvent, content_type = "text/event-stream"),
        (status = "default", response = berth_http::ProblemResponse)
    )
)]
pub(in crate::routes) async fn watch_one(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    shown: Shown,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Response, Problem> {
    let right = load::<ReadWorkspace>(&api, &principal, &caller, &workspace).await?;
    Ok(stream(api, principal, shown, Subject::One(right.id)))
}

fn stream(api: Api, principal: Arc<Principal>, shown: Shown, subject: Subject) -> Response {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let watcher = Watcher {
            changes: api.changes().subscribe(),
            api,
            principal,
            shown: shown.0,
            subject,
            sender,
            known: HashSet::new(),
        };
        if let Err(End::Problem(problem)) = watcher.run().await {
            tracing::info!(%problem, "a watch ended");
        }
    });
    let events = futures::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((event, receiver))
    });
    json_stream(events).into_response()
}

/// Why a watch ends.
enum End {
    /// The client is gone, or the workspace that it watched.
    Done,
    /// It cannot go on.
    Problem(Problem),
}

impl<E: Into<Problem>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

struct Watcher {
    api: Api,
    principal: Arc<Principal>,
    shown: Presented,
    subject: Subject,
    changes: broadcast::Receiver<Change>,
    sender: mpsc::Sender<WorkspaceEvent>,
    known: HashSet<WorkspaceId>,
}

impl Watcher {
    async fn run(mut self) -> Result<(), End> {
        self.everything().await?;
        self.send(WorkspaceEvent::Synced).await?;
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.reset();
        let sender = self.sender.clone();
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(change) => self.news(change).await?,
                    Err(RecvError::Lagged(_)) => self.everything().await?,
                    Err(RecvError::Closed) => return Err(End::Done),
                },
                _ = check.tick() => {
                    self.principal = self.api.authenticator().authenticate(&self.shown).await?;
                    if let Subject::One(_) = self.subject {
                        self.everything().await?;
                    }
                }
                () = sender.closed() => return Err(End::Done),
            }
        }
    }

    async fn send(&self, event: WorkspaceEvent) -> Result<(), End> {
        self.sender.send(event).await.map_err(|_| End::Done)
    }

    /// Whether the caller may see it, and it is among what they watch.
    fn wanted(&self, workspace: &Workspace) -> bool {
        let right = Authorized::<Workspace, ReadWorkspace>::check(&self.principal, workspace.clone());
        let subject = match &self.subject {
            Subject::One(id) => workspace.id == *id,
            Subject::Many(ListScope::Own(owner)) => workspace.owner_id == *owner,
            Subject::Many(ListScope::OwnIn(right)) => {
                workspace.owner_id == right.principal().user_id && workspace.organization_id == right.id
            }
            Subject::Many(ListScope::Organization(right)) => workspace.organization_id == right.id,
            Subject::Many(ListScope::All(_)) => true,
        };
        right.is_ok() && subject
    }

    /// Sends the current state of everything, and what has gone since the last time.
    async fn everything(&mut self) -> Result<(), End> {
        let mut seen = HashSet::new();
        match &self.subject {
            Subject::One(id) => {
                let ids = [*id];
                self.read(&ids, &mut seen).await?;
            }
            Subject::Many(_) => {
                let mut before = None;
                loop {
                    let page = self.page(before).await?;
                    before = page.last().map(|workspace| workspace.id);
                    let last = i64::try_from(page.len()).is_ok_and(|count| count < PAGE);
                    for workspace in page.iter().filter(|workspace| self.wanted(workspace)) {
                        seen.insert(workspace.id);
                        self.send(WorkspaceEvent::Workspace { workspace: Box::new(workspace.public()) }).await?;
                    }
                    if last {
                        break;
                    }
                }
            }
        }
        let gone: Vec<WorkspaceId> = self.known.difference(&seen).copied().collect();
        self.known = seen;
        self.gone(&gone).await
    }

    async fn page(&self, before: Option<WorkspaceId>) -> Result<Vec<Workspace>, End> {
        let Subject::Many(scope) = &self.subject else { return Ok(Vec::new()) };
        let mut conn = self.api.connection().await?;
        Ok(store::workspaces::list(&mut conn, scope, &ListFilter::default(), before, PAGE).await?)
    }

    /// Sends those of `ids` that the caller may see.
    async fn read(&self, ids: &[WorkspaceId], seen: &mut HashSet<WorkspaceId>) -> Result<(), End> {
        let mut conn = self.api.connection().await?;
        let rows = store::workspaces::find_many(&mut conn, ids).await?;
        drop(conn);
        for workspace in rows.iter().filter(|workspace| self.wanted(workspace)) {
            seen.insert(workspace.id);
            self.send(WorkspaceEvent::Workspace { workspace: Box::new(workspace.public()) }).await?;
        }
        Ok(())
    }

    async fn gone(&self, ids: &[WorkspaceId]) -> Result<(), End> {
        for id in ids {
            self.send(WorkspaceEvent::Deleted { id: *id }).await?;
        }
        match self.subject {
            Subject::One(_) if !ids.is_empty() => Err(End::Done),
            Subject::One(_) | Subject::Many(_) => Ok(()),
        }
    }

    /// Something changed: it, and whatever else changed meanwhile, is read at once.
    async fn news(&mut self, first: Change) -> Result<(), End> {
        let mut ids = HashSet::new();
        let mut next = Some(first);
        while let Some(change) = next {
            match change {
                Change::Workspace(id) => {
                    ids.insert(id);
                }
                Change::Resync => return self.everything().await,
            }
            next = match self.changes.try_recv() {
                Ok(change) => Some(change),
                Err(TryRecvError::Lagged(_)) => return self.everything().await,
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            };
        }
        if let Subject::One(id) = self.subject {
            ids.retain(|changed| *changed == id);
        }
        if ids.is_empty() {
            return Ok(());
        }
        let changed: Vec<WorkspaceId> = ids.into_iter().collect();
        let mut seen = HashSet::new();
        self.read(&changed, &mut seen).await?;
        let gone: Vec<WorkspaceId> =
            changed.into_iter().filter(|id| self.known.contains(id) && !seen.contains(id)).collect();
        for id in &gone {
            self.known.remove(id);
        }
        self.known.extend(seen);
        self.gone(&gone).await
    }
}
