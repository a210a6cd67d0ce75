//! Terminals: they live in the workspace, and outlive every connection to them.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Problem, Query};
use berth_supervisor_client::protocol::{Reply, Request, TerminalInfo, TerminalOpen, TtySize};
use serde::Deserialize;

use super::Items;
use crate::Gateway;
use crate::access::{Caller, problem};
use crate::relay::{self, Session};
use crate::websocket::Upgrade;

/// What is replayed of a terminal's past to one who joins.
const SCROLLBACK_BYTES: u64 = 64 * 1024;

/// Whether to wait for a workspace that is being started.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    #[serde(default)]
    wait: bool,
}

/// `GET /terminals`: those that are open, oldest first.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(Wait { wait }): Query<Wait>,
) -> Result<Json<Items<TerminalInfo>>, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, wait).await?;
    let items = access.supervisor().await?.terminals().await.map_err(problem)?;
    Ok(Json(Items { items }))
}

/// A terminal to open.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Open {
    rows: Option<u16>,
    cols: Option<u16>,
    term: Option<String>,
    /// The command; the user's login shell when absent.
    argv: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    name: Option<String>,
}

/// `POST /terminals`: 201 with the terminal.
pub(super) async fn open(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(Wait { wait }): Query<Wait>,
    Json(open): Json<Open>,
) -> Result<(StatusCode, Json<TerminalInfo>), Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, wait).await?;
    access.mark();
    let request = Request::TerminalOpen(TerminalOpen {
        argv: open.argv,
        env: open.env,
        cwd: open.cwd,
        user: open.user,
        size: TtySize { rows: open.rows.unwrap_or(24), cols: open.cols.unwrap_or(80) },
        term: open.term,
        name: open.name,
        attach: false,
        close_on_detach: false,
    });
    match access.supervisor().await?.request(&request).await.map_err(problem)? {
        Reply::Terminal(terminal) => Ok((StatusCode::CREATED, Json(terminal))),
        _ => Err(Problem::unavailable("the workspace's supervisor answered something else than was asked")),
    }
}

/// How to join.
#[derive(Debug, Deserialize)]
pub(super) struct Attach {
    rows: Option<u16>,
    cols: Option<u16>,
    /// How much of its past to replay.
    scrollback_bytes: Option<u64>,
}

/// `GET /terminals/{terminal}`: joins it, by websocket.
pub(super) async fn attach(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, terminal)): Path<(String, String)>,
    Query(attach): Query<Attach>,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, false).await?;
    access.mark();
    let request =
        Request::TerminalAttach { id: terminal, scrollback_bytes: attach.scrollback_bytes.unwrap_or(SCROLLBACK_BYTES) };
    let resize = attach.rows.zip(attach.cols).map(|(rows, cols)| TtySize { rows, cols });
    Ok(relay::upgrade(upgrade, access, Session { request, resize, marks_activity: true }))
}

/// `DELETE /terminals/{terminal}`: hangs it up. 204.
pub(super) async fn close(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, terminal)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, false).await?;
    access.supervisor().await?.request(&Request::TerminalClose { id: terminal }).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}
