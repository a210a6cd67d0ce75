//! `berth exec`.

use super::{Context, encode, terminal};
use crate::args::Exec;
use crate::exit::{self, Exit};

/// Longest address of a request; a command travels in it.
const MAX_ADDRESS_BYTES: usize = 65_000;

/// Runs a command; its exit status is ours. Waits for a workspace that is being started.
pub(crate) async fn run(context: &Context, exec: Exec) -> anyhow::Result<()> {
    if exec.command.first().is_some_and(String::is_empty) {
        return Err(Exit::new(exit::USAGE, "the command is empty: write its program after --").into());
    }
    let mut path = format!("/api/v1/workspaces/{}/exec?wait=true&tty={}", encode(&exec.workspace), exec.tty);
    for arg in &exec.command {
        path.push_str(&format!("&arg={}", encode(arg)));
    }
    for env in &exec.env {
        path.push_str(&format!("&env={}", encode(env)));
    }
    for (key, value) in [("cwd", &exec.workdir), ("user", &exec.user)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    if exec.tty {
        let (rows, cols) = terminal::size();
        path.push_str(&format!("&rows={rows}&cols={cols}&term={}", encode(&term())));
    }
    if path.len() > MAX_ADDRESS_BYTES {
        let text = "the command with its variables is too long: pipe it in (`berth exec WORKSPACE -- sh < script`), or copy it there with `berth cp`";
        return Err(Exit::new(exit::USAGE, text).into());
    }
    let socket = context.client.websocket(&path).await?;
    match terminal::relay(socket, exec.tty).await.map_err(as_shells_tell)?.status {
        0 => Ok(()),
        status => Err(Exit::silent(status).into()),
    }
}

/// A program that could not be run gets the exit status that shells use.
fn as_shells_tell(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Exit>() {
        Ok(exit) => match exit.status {
            exit::NOT_FOUND => exit.with_status(127).into(),
            exit::NOT_ALLOWED => exit.with_status(126).into(),
            _ => exit.into(),
        },
        Err(error) => error,
    }
}

/// `TERM` of our terminal.
pub(crate) fn term() -> String {
    std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned())
}
