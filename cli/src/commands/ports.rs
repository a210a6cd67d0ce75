//! `berth ports` and `berth port-forward`.

use anyhow::{Context as _, bail};
use berth_api_types::channel::{CONTROL, Control, STDIN, STDOUT};
use futures::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::{Context, encode};
use crate::args::Output;
use crate::output::{self, cell};

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

/// Forwards ports until interrupted. Says so once the ports are open.
pub(crate) async fn forward(context: &Context, workspace: &str, ports: &[String]) -> anyhow::Result<()> {
    let ports = ports.iter().map(|port| parse(port)).collect::<anyhow::Result<Vec<_>>>()?;
    // Whoever may not, or forwards into a workspace that does not run, learns it now and not from the first connection.
    let _: serde_json::Value = context.client.get(&format!("/api/v1/workspaces/{}/ports", encode(workspace))).await?;
    let (mut listeners, mut forwarded) = (Vec::new(), Vec::new());
    for (local, remote) in ports {
        let listener = TcpListener::bind(("127.0.0.1", local))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{local}: choose another with LOCAL:{remote}"))?;
        let address = listener.local_addr()?;
        forwarded.push(Forwarded { local: address.to_string(), remote });
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
    let upload = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let count = reader.read(&mut buffer).await?;
            // As with a command's standard input, an empty message is the end.
            let mut message = Vec::with_capacity(count + 1);
            message.push(STDIN);
            message.extend_from_slice(&buffer[..count]);
            sink.send(Message::Binary(message.into())).await?;
            if count == 0 {
                return anyhow::Ok(());
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
                        // Other control messages do not matter here.
                        if let Ok(Control::Error { message, .. }) = serde_json::from_slice(payload) {
                            bail!(message);
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
        up = &mut upload => download.await.and(up),
    }
}

fn parse(port: &str) -> anyhow::Result<(u16, u16)> {
    let (local, remote) = port.split_once(':').unwrap_or((port, port));
    let number = |text: &str| text.parse::<u16>().with_context(|| format!("{port:?} is not PORT or LOCAL:REMOTE"));
    Ok((number(local)?, number(remote)?))
}
