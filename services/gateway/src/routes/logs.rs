//! `GET /api/v1/workspaces/{workspace}/logs`: what the workspace's main process wrote, from the node agent; also of one that has stopped.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Problem, Query};
use futures::StreamExt as _;
use serde::Deserialize;

use crate::Gateway;
use crate::access::Caller;

/// More are not counted.
const MOST_LINES: u32 = 100_000;

/// How much.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Continue with new output.
    #[serde(default)]
    follow: bool,
    /// Only this many lines, the last ones.
    #[param(maximum = 4294967295_u32)]
    tail: Option<u32>,
}

/// How the newest run started, and the output of its main process; also after it has stopped.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/logs", operation_id = "workspace_logs", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), Parameters),
    responses((status = 200, description = "The log.", content_type = "text/plain", body = String), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn handle(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let access = caller.instance(&gateway, WorkspaceAction::Read).await?;
    let node = access.node_client()?;
    let path = format!("/internal/instances/{}/logs?follow=", access.instance);
    let tail = match parameters.tail {
        None => String::new(),
        Some(lines) => {
            let mut tail = Tail::new(lines);
            // The node keeps a few megabytes at most; it counts bytes, people count lines.
            let mut whole = node.stream(&format!("{path}false")).await?.into_body().into_data_stream();
            while let Some(piece) = whole.next().await {
                tail.read(&piece.map_err(Problem::internal)?);
            }
            format!("&tail={}", tail.bytes())
        }
    };
    let answer = node.stream(&format!("{path}{}{tail}", parameters.follow)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::new(answer.into_body())).into_response())
}

/// Where the last lines of a stream begin.
#[derive(Debug)]
struct Tail {
    keep: usize,
    starts: VecDeque<u64>,
    total: u64,
    at_start: bool,
}

impl Tail {
    fn new(lines: u32) -> Self {
        let keep = usize::try_from(lines.min(MOST_LINES)).unwrap_or(usize::MAX);
        Self { keep, starts: VecDeque::new(), total: 0, at_start: true }
    }

    fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.at_start {
                self.starts.push_back(self.total);
                if self.starts.len() > self.keep {
                    self.starts.pop_front();
                }
            }
            self.at_start = *byte == b'\n';
            self.total += 1;
        }
    }

    fn bytes(&self) -> u64 {
        self.starts.front().map_or(0, |start| self.total - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_tail_does() {
        for (text, lines, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\n", 0, ""),
        ] {
            let mut tail = Tail::new(lines);
            for piece in text.as_bytes().chunks(2) {
                tail.read(piece);
            }
            let start = text.len() - usize::try_from(tail.bytes()).unwrap();
            assert_eq!(&text[start..], expected, "{text:?} {lines}");
        }
    }
}
