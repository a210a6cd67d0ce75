//! `GET /api/v1/workspaces/{workspace}/exec`: a command, by websocket.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Problem, QueryWithEmpty};
use berth_supervisor_client::protocol::{Exec, Request, TtySize};
use serde::Deserialize;
use serde_json::json;

use crate::Gateway;
use crate::access::{Caller, kept};
use crate::relay::{self, Session};
use crate::websocket::Upgrade;

/// Arguments at most; the kernel's own bound on their size comes later.
const MAX_ARGUMENTS: usize = 4096;

/// The command.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Program and arguments, one parameter each.
    #[serde(default)]
    arg: Vec<String>,
    /// `NAME=VALUE`, one parameter each.
    #[serde(default)]
    env: Vec<String>,
    /// Working directory, absolute or below the checkout; the checkout when absent.
    cwd: Option<String>,
    /// User inside; the image's own when absent.
    user: Option<String>,
    /// On a terminal.
    #[serde(default)]
    tty: bool,
    /// Its lines.
    #[param(maximum = 65535)]
    rows: Option<u16>,
    /// Its columns.
    #[param(maximum = 65535)]
    cols: Option<u16>,
    /// Its kind, for example `xterm-256color`.
    term: Option<String>,
    /// Wait for a workspace that is being started.
    #[serde(default)]
    wait: bool,
}

/// Run a command in a running workspace.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/exec", operation_id = "exec", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), Parameters),
    responses((status = 101, description = "A websocket: binary messages, their first byte the channel: 0 input, 1 output, 2 errors, 3 control as JSON."), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn handle(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryWithEmpty(parameters): QueryWithEmpty<Parameters>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let wait = parameters.wait;
    let exec = exec(parameters)?;
    let access = caller.running(&gateway, WorkspaceAction::Exec, wait).await?;
    access.mark();
    // Of a command only its program: arguments may hold secrets.
    access.audit("workspace.exec", json!({ "program": exec.argv.first().map(|program| kept(program)) })).await?;
    let session = Session { request: Request::Exec(exec), resize: None, marks_activity: true };
    Ok(relay::upgrade(upgrade, access, session))
}

fn exec(parameters: Parameters) -> Result<Exec, Problem> {
    if parameters.arg.first().is_none_or(String::is_empty) {
        return Err(Problem::bad_request("missing_command", "give the program and its arguments as `arg` parameters"));
    }
    if parameters.arg.len() > MAX_ARGUMENTS {
        return Err(Problem::bad_request("too_many_arguments", format!("more than {MAX_ARGUMENTS} arguments")));
    }
    let size = TtySize { rows: parameters.rows.unwrap_or(24), cols: parameters.cols.unwrap_or(80) };
    Ok(Exec {
        argv: parameters.arg,
        env: environment(&parameters.env)?,
        cwd: parameters.cwd,
        user: parameters.user,
        tty: parameters.tty.then_some(size),
        term: parameters.term,
        stdin: true,
        keep_on_disconnect: false,
    })
}

/// `NAME=VALUE` pairs.
pub(super) fn environment(pairs: &[String]) -> Result<BTreeMap<String, String>, Problem> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Problem::bad_request("invalid_env", "an `env` parameter is NAME=VALUE")),
        })
        .collect()
}
