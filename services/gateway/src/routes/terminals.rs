//! Terminals: they live in the workspace, and outlive every connection to them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, Query};
use berth_supervisor_client::protocol::{Reply, Request, TerminalInfo, TerminalOpen, TerminalState, TtySize};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Items;
use crate::Gateway;
use crate::access::{Caller, kept, problem};
use crate::relay::{self, Session};
use crate::websocket::Upgrade;

/// What is replayed of a terminal's past to one who joins.
const SCROLLBACK_BYTES: u64 = 64 * 1024;

/// A terminal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Terminal {
    /// Its id.
    id: String,
    /// As it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The command.
    argv: Vec<String>,
    /// Of the command, inside the workspace.
    pid: u32,
    /// Present size.
    size: Size,
    /// Unix time in milliseconds by the workspace's clock.
    created_at_ms: u64,
    /// How many are attached now.
    attached: u32,
    /// Bytes of scrollback that a late joiner gets.
    scrollback_bytes: u64,
    /// `running`, or how its command ended.
    #[schema(value_type = serde_json::Value)]
    state: TerminalState,
}

/// A terminal's size.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Size {
    /// Lines.
    rows: u16,
    /// Columns.
    cols: u16,
}

impl From<TerminalInfo> for Terminal {
    fn from(info: TerminalInfo) -> Self {
        Self {
            id: info.id,
            name: info.name,
            argv: info.argv,
            pid: info.pid,
            size: Size { rows: info.size.rows, cols: info.size.cols },
            created_at_ms: info.created_at_ms,
            attached: info.attached,
            scrollback_bytes: info.scrollback_bytes,
            state: info.state,
        }
    }
}

/// Whether to wait for a workspace that is being started.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Wait for it.
    #[serde(default)]
    wait: bool,
}

/// The terminals that are open, oldest first.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/terminals", operation_id = "list_terminals", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), Wait),
    responses((status = 200, body = Items<Terminal>), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(Wait { wait }): Query<Wait>,
) -> Result<Json<Items<Terminal>>, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, wait).await?;
    let terminals = access.supervisor().await?.terminals().await.map_err(problem)?;
    Ok(Json(Items { items: terminals.into_iter().map(Terminal::from).collect() }))
}

/// A terminal to open.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Open {
    /// Lines; 24 when absent.
    #[schema(maximum = 65535)]
    rows: Option<u16>,
    /// Columns; 80 when absent.
    #[schema(maximum = 65535)]
    cols: Option<u16>,
    /// `TERM`; `xterm-256color` when absent.
    term: Option<String>,
    /// The command; the user's login shell when absent.
    #[schema(min_items = 1)]
    argv: Option<Vec<String>>,
    /// Added to the workspace's environment.
    env: BTreeMap<String, String>,
    /// Working directory, absolute or below the checkout; the checkout when absent.
    cwd: Option<String>,
    /// User inside; the image's own when absent.
    user: Option<String>,
    /// Shown in lists.
    name: Option<String>,
}

/// Open a terminal. It lives on when nobody is connected.
#[utoipa::path(
    post, path = "/api/v1/workspaces/{workspace}/terminals", operation_id = "open_terminal", tag = "inside",
    request_body = Open,
    params(("workspace" = String, Path, description = "Id or name."), Wait),
    responses((status = 201, body = Terminal), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn open(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(Wait { wait }): Query<Wait>,
    Json(open): Json<Open>,
) -> Result<(StatusCode, Json<Terminal>), Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, wait).await?;
    access.mark();
    let program = open.argv.as_ref().and_then(|argv| argv.first());
    access.audit("terminal.open", json!({ "program": program.map(|program| kept(program)) })).await?;
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
        Reply::Terminal(terminal) => Ok((StatusCode::CREATED, Json(terminal.into()))),
        _ => Err(Problem::unavailable("the workspace's supervisor answered something else than was asked")),
    }
}

/// How to join.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Attach {
    /// Lines of the client's terminal.
    #[param(maximum = 65535)]
    rows: Option<u16>,
    /// Its columns.
    #[param(maximum = 65535)]
    cols: Option<u16>,
    /// How much of its recent output to replay.
    #[param(maximum = 4294967295_u32)]
    scrollback_bytes: Option<u32>,
}

/// Join a terminal, by websocket: its recent output, then new output.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/terminals/{terminal}", operation_id = "attach_terminal", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), ("terminal" = String, Path, description = "Its id."), Attach),
    responses((status = 101, description = "A websocket: binary messages, their first byte the channel: 0 input, 1 output, 2 errors, 3 control as JSON."), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn attach(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, terminal)): Path<(String, String)>,
    Query(attach): Query<Attach>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, false).await?;
    access.mark();
    let request = Request::TerminalAttach {
        id: terminal,
        scrollback_bytes: attach.scrollback_bytes.map_or(SCROLLBACK_BYTES, u64::from),
    };
    let resize = attach.rows.zip(attach.cols).map(|(rows, cols)| TtySize { rows, cols });
    Ok(relay::upgrade(upgrade, access, Session { request, resize, marks_activity: true }))
}

/// Hang up a terminal.
#[utoipa::path(
    delete, path = "/api/v1/workspaces/{workspace}/terminals/{terminal}", operation_id = "close_terminal", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), ("terminal" = String, Path, description = "Its id.")),
    responses((status = 204, description = "It is gone."), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn close(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, terminal)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, false).await?;
    access.audit("terminal.close", json!({ "terminal": kept(&terminal) })).await?;
    access.supervisor().await?.request(&Request::TerminalClose { id: terminal }).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}
