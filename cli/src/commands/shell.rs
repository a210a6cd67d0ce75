//! `berth shell`: a terminal that outlives the connection.

use std::io::IsTerminal as _;

use super::{Context, encode, exec, terminal};
use crate::args::{Exec, Shell};
use crate::client::WebSocket;
use crate::exit::Exit;
use crate::output::{self, cell};

/// Opens a shell, attaches to an open one, or lists them.
pub(crate) async fn run(context: &Context, shell: Shell) -> anyhow::Result<()> {
    if shell.list {
        let path = format!("/api/v1/workspaces/{}/terminals", encode(&shell.workspace));
        let value: serde_json::Value = context.client.get(&path).await?;
        return output::result(context.output, &output::items(&value), |items| {
            let row = |item: &serde_json::Value| {
                // `"running"`, or `{"exited": …}`: then only its last output can be seen.
                let state = if item["state"].is_object() { "exited".to_owned() } else { cell(&item["state"]) };
                vec![cell(&item["id"]), state, cell(&item["name"]), cell(&item["attached"]), cell(&item["pid"])]
            };
            let rows: Vec<Vec<String>> = items.iter().map(row).collect();
            output::table(&["ID", "STATE", "NAME", "ATTACHED", "PID"], &rows)
        });
    }
    match shell.attach {
        Some(id) => ended(terminal::relay(attach(context, &shell.workspace, &id).await?, true).await?),
        None => open(context, &shell.workspace).await,
    }
}

/// Opens a new shell in the checkout and connects our terminal with it. Without a terminal, the shell reads our standard input and ends at
/// its end, as every shell does.
pub(crate) async fn open(context: &Context, workspace: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        let command = ["sh", "-c", r#"exec "${SHELL:-sh}""#].map(str::to_owned).to_vec();
        let workspace = workspace.to_owned();
        return exec::run(context, Exec { workspace, workdir: None, env: Vec::new(), user: None, tty: false, command })
            .await;
    }
    let (rows, cols) = terminal::size();
    let path = format!("/api/v1/workspaces/{}/terminals?wait=true", encode(workspace));
    let body = serde_json::json!({ "rows": rows, "cols": cols, "term": exec::term() });
    let opened: serde_json::Value = context.client.post(&path, &body).await?;
    let id = match &opened["id"] {
        serde_json::Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    ended(terminal::relay(attach(context, workspace, &id).await?, true).await?)
}

async fn attach(context: &Context, workspace: &str, id: &str) -> anyhow::Result<WebSocket> {
    let (rows, cols) = terminal::size();
    let path = format!("/api/v1/workspaces/{}/terminals/{}?rows={rows}&cols={cols}", encode(workspace), encode(id));
    context.client.websocket(&path).await
}

fn ended(ended: terminal::Ended) -> anyhow::Result<()> {
    match ended.status {
        0 => Ok(()),
        status => Err(Exit::silent(status).into()),
    }
}
