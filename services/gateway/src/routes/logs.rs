//! `GET /api/v1/workspaces/{workspace}/logs`: what the workspace's main process wrote, from the node agent; also of one that has stopped.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_api_types::public::Phase;
use berth_http::{Problem, Query};
use futures::StreamExt as _;
use serde::Deserialize;

use crate::Gateway;
use crate::access::{Access, Caller, changed};

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
    let path = format!("/internal/instances/{}/logs?follow=", access.instance);
    let tail = match parameters.tail {
        None => String::new(),
        Some(lines) => {
            let mut tail = Tail::new(lines);
            // The node keeps a few megabytes at most; it counts bytes, people count lines.
            let mut whole = log(&access, &format!("{path}false"), parameters.follow).await?.into_data_stream();
            while let Some(piece) = whole.next().await {
                tail.read(&piece.map_err(Problem::internal)?);
            }
            format!("&tail={}", tail.bytes())
        }
    };
    let log = log(&access, &format!("{path}{}{tail}", parameters.follow), parameters.follow).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], log).into_response())
}

/// The log as the node has it. An instance that is being placed has none yet: with `wait` it is waited for.
async fn log(access: &Access, path: &str, wait: bool) -> Result<Body, Problem> {
    let mut news = access.news.clone();
    loop {
        let phase = news.borrow_and_update().as_ref().map(|known| known.phase);
        let refused = match access.node_client() {
            Ok(node) => match node.stream(path).await.map_err(Problem::from) {
                Ok(answer) => return Ok(Body::new(answer.into_body())),
                Err(problem) if problem.status() == StatusCode::NOT_FOUND => problem,
                Err(problem) => return Err(problem),
            },
            Err(unplaced) => unplaced,
        };
        if phase >= Some(Phase::Running) {
            return Err(refused);
        }
        if !wait {
            return Err(Problem::not_found("the start has not come so far that there is a log: following it waits"));
        }
        changed(&mut news).await?;
    }
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
