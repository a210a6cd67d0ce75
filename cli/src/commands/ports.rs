//! `berth ports` and `berth port-forward`.

use anyhow::{Context as _, bail};
use berth_api_types::channel::{CONTROL, Control, STDIN, STDOUT};
use futures::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::terminal::message;
use super::window::Window;
use super::{Context, encode};
use crate::args::Output;
use crate::output::{self, cell};
use crate::values::PortPair;

/// Lists the ports that programs inside listen on.
pub(crate) async fn list(context: &Context, workspace: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        context.client.get(&format!("/api/v1/workspaces/{}/ports", encode(workspace))).await?;
    output::result(context.output, &output::items(&value), |items| {
        let row = |item: &serde_json::Value| ["port", "address", "process", "pid"].map(|key| cell(&item[key])).to_vec();
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        output::table(&["PORT", "ADDRESS", "PROCESS", "PID"], &rows)
    })
}

/// A local address, and the port inside that it leads to.
#[derive(Serialize)]
struct Forwarded {
    local: String,
    remote: u16,
}

/// Forwards ports until it is interrupted. What is forwarded is told once it is.
pub(crate) async fn forward(context: &Context, workspace: &str, ports: &[PortPair]) -> anyhow::Result<()> {
    // Who may not, or forwards into a workspace that does not run, learns it now and not from the first connection.
    let _: serde_json::Value = context.client.get(&format!("/api/v1/workspaces/{}/ports", encode(workspace))).await?;
    let (mut listeners, mut forwarded) = (Vec::new(), Vec::new());
    for &PortPair { local, remote } in ports {
        let listener = TcpListener::bind(("127.0.0.1", local))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{local}: choose another with LOCAL:{remote}"))?;
        let address = listener.local_addr()?;
        forwarded.push(Forwarded { local: address.to_string(), remote });
        // For who asks for localhost and tries IPv6 first; where that is not there or taken, they go on to the other.
        if let Ok(listener) = TcpListener::bind(("::1", address.port())).await {
            listeners.push((listener, remote));
        }
        listeners.push((listener, remote));
    }
    match context.output {
        Output::Json => output::result(Output::Json, &forwarded, |_| String::new())?,
        Output::Text => forwarded.iter().for_each(|Forwarded { local, remote }| {
            output::note(format!("{local} -> {workspace}:{remote}"));
        }),
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (listener, remote) in listeners {
        let (context, workspace) = (context.clone(), workspace.to_owned());
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let (context, workspace) = (context.clone(), workspace.clone());
                tokio::spawn(async move {
                    if let Err(error) = tunnel(&context, &workspace, remote, stream).await {
                        output::note(format!("port {remote}: {error:#}"));
                    }
                });
            }
        });
    }
    tokio::select! {
        ended = tasks.join_next() => match ended {
            Some(result) => result?,
            None => Ok(()),
        },
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn tunnel(context: &Context, workspace: &str, remote: u16, stream: TcpStream) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}/ports/{remote}/connect", encode(workspace));
    let (mut sink, mut source) = context.client.websocket(&path).await?.split();
    let (mut reader, mut writer) = stream.into_split();
    let window = Window::closed();
    // Until the client has said all, or has gone.
    let upload = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let room = tokio::select! {
                room = window.room(buffer.len()) => room,
                // Cut off by the client while the port takes nothing.
                _ = reader.ready(Interest::ERROR) => return Upload::Gone,
            };
            let Ok(count) = reader.read(&mut buffer[..room]).await else { return Upload::Gone };
            window.widen(room - count);
            // As standard input of a command; empty is the end.
            if sink.send(message(STDIN, &buffer[..count])).await.is_err() {
                // Whoever reads no more may have said why.
                return std::future::pending().await;
            }
            if count == 0 {
                return Upload::Whole;
            }
        }
    };
    let download = async {
        while let Some(message) = source.next().await {
            match message? {
                Message::Binary(bytes) => match bytes.split_first() {
                    // The workspace's side has finished sending, and may still receive.
                    Some((&STDOUT, [])) => writer.shutdown().await?,
                    Some((&STDOUT, payload)) => writer.write_all(payload).await?,
                    Some((&CONTROL, payload)) => {
                        match serde_json::from_slice(payload) {
                            Ok(Control::Error { message, .. }) => bail!(message),
                            Ok(Control::Ready { input_window }) => window.open(input_window),
                            Ok(Control::Window { bytes }) => window.widen(usize::try_from(bytes)?),
                            // Others are of no use here, known or not.
                            Ok(_) | Err(_) => {}
                        }
                    }
                    _ => {}
                },
                Message::Close(_) => break,
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    // The workspace's side is gone, so nothing that the client still sends can be delivered; closing the connection tells it so.
    tokio::pin!(upload, download);
    tokio::select! {
        biased;
        down = &mut download => down,
        up = &mut upload => match up {
            Upload::Whole => download.await,
            // Closed with it, the connection ends on the workspace's side too.
            Upload::Gone => Ok(()),
        },
    }
}

/// How the client's side of a connection ended.
enum Upload {
    /// It has said all, and may still listen.
    Whole,
    /// Nobody is there any more.
    Gone,
}
