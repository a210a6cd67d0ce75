//! `GET /api/v1/workspaces/{workspace}/logs`: what the workspace's main process wrote, from the node agent; also of one that has stopped.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Problem, Query};
use serde::Deserialize;

use crate::Gateway;
use crate::access::Caller;

/// How much.
#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    /// Go on with what comes.
    #[serde(default)]
    follow: bool,
    /// The last so many lines only.
    tail: Option<u32>,
}

pub(super) async fn handle(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let access = caller.instance(&gateway, WorkspaceAction::Read).await?;
    let tail = parameters.tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let path = format!("/internal/instances/{}/logs?follow={}{tail}", access.instance, parameters.follow);
    let answer = access.node_client()?.stream(&path).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::new(answer.into_body())).into_response())
}
