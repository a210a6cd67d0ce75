//! `berth logs`.

use anyhow::Context as _;
use http::Method;
use http_body_util::BodyExt as _;

use super::{Context, encode};
use crate::args::Logs;
use crate::output;

/// Prints a workspace's log.
pub(crate) async fn run(context: &Context, logs: &Logs) -> anyhow::Result<()> {
    let mut path = format!("/api/v1/workspaces/{}/logs?follow={}", encode(&logs.workspace), logs.follow);
    if let Some(tail) = logs.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    stream(context, &path).await
}

/// Prints a body as it comes.
pub(crate) async fn stream(context: &Context, path: &str) -> anyhow::Result<()> {
    let mut body = context.client.send(Method::GET, path, Vec::new(), &[]).await?.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.context("the server's answer broke off")?.data_ref() {
            output::write(data)?;
        }
    }
    Ok(())
}
