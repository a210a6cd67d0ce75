//! `berth logs`.

use berth_api_types::public::Workspace;
use http::Method;
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::{Context, encode};
use crate::args::{Logs, Output};
use crate::client::broke_off;
use crate::output;

/// Prints a workspace's log.
pub(crate) async fn run(context: &Context, logs: &Logs) -> anyhow::Result<()> {
    let mut path = format!("/api/v1/workspaces/{}/logs?follow={}", encode(&logs.workspace), logs.follow);
    if let Some(tail) = logs.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    print(context, &path, logs.follow).await?;
    if logs.follow && context.output == Output::Text {
        told_why(context, &logs.workspace).await;
    }
    Ok(())
}

/// Says why nothing more comes, if the workspace is still known.
async fn told_why(context: &Context, workspace: &str) {
    let path = format!("/api/v1/workspaces/{}", encode(workspace));
    if let Ok(workspace) = context.client.get::<Workspace>(&path).await {
        let because = if workspace.reason.is_empty() { String::new() } else { format!(": {}", workspace.reason) };
        output::note(format!("{} is {:?}{because}", workspace.name, workspace.phase));
    }
}

/// A line of a log.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    line: String,
}

/// Prints a log as text; as JSON, a list of its lines, and while it is followed an object for each line as it comes.
pub(crate) async fn print(context: &Context, path: &str, follow: bool) -> anyhow::Result<()> {
    if context.output == Output::Text {
        return stream(context, path, output::write).await;
    }
    let (mut lines, mut all) = (Lines::default(), Vec::new());
    stream(context, path, |data| {
        for line in lines.take(data) {
            if follow {
                output::write(format!("{}\n", serde_json::to_string(&line)?).as_bytes())?;
            } else {
                all.push(line);
            }
        }
        Ok(())
    })
    .await?;
    let rest = lines.rest();
    if follow {
        return rest.map_or(Ok(()), |line| output::write(format!("{}\n", serde_json::to_string(&line)?).as_bytes()));
    }
    all.extend(rest);
    output::result(Output::Json, &all, |_| String::new())
}

/// Hands over a body as it comes, until somebody who reads it has left.
pub(crate) async fn stream(
    context: &Context,
    path: &str,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut body = context.client.send(Method::GET, path, Vec::new(), &[]).await?.into_body();
    let left = std::pin::pin!(output::reader_left());
    let read = async {
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.map_err(|error| broke_off(&error))?.data_ref() {
                take(data)?;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        done = read => done,
        () = left => Ok(()),
    }
}

/// Pieces of a text as its lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, piece: &[u8]) -> Vec<Line> {
        self.0.extend_from_slice(piece);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        whole[..end].split(|byte| *byte == b'\n').map(Line::of).collect()
    }

    /// What has no end of a line.
    fn rest(self) -> Option<Line> {
        (!self.0.is_empty()).then(|| Line::of(&self.0))
    }
}

impl Line {
    fn of(bytes: &[u8]) -> Self {
        Self { line: String::from_utf8_lossy(bytes).into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        let line = |text: &str| Line { line: text.to_owned() };
        assert_eq!(lines.take(b"a"), []);
        assert_eq!(lines.take(b"b\n\nc\nd"), [line("ab"), line(""), line("c")]);
        assert_eq!(lines.rest(), Some(line("d")));
    }
}
