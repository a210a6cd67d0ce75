//! What tasks and services have in common.

use http::Method;

use super::{Context, encode, logs};
use crate::args::{Unit, UnitLogs};
use crate::output::{self, cell};

/// Lists the tasks or services of a workspace.
pub(crate) async fn list(context: &Context, kind: &str, workspace: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        context.client.get(&format!("/api/v1/workspaces/{}/{kind}", encode(workspace))).await?;
    output::result(context.output, &value, |value| {
        let row =
            |item: &serde_json::Value| ["reference", "name", "phase", "reason"].map(|key| cell(&item[key])).to_vec();
        let rows: Vec<Vec<String>> = output::items(value).iter().map(row).collect();
        output::table(&["KEY", "NAME", "PHASE", "REASON"], &rows)
    })
}

/// Starts or stops one.
pub(crate) async fn act(context: &Context, kind: &str, unit: &Unit, verb: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}/{kind}/{}/{verb}", encode(&unit.workspace), encode(&unit.name));
    let value: serde_json::Value = context.client.json(Method::POST, &path, Some(&serde_json::json!({})), &[]).await?;
    output::result(context.output, &value, |value| match (verb, value["phase"].as_str().unwrap_or("accepted")) {
        ("stop", "Pending" | "Starting" | "Running") => format!("{} is being stopped", unit.name),
        (_, phase) => format!("{}: {phase}", unit.name),
    })
}

/// Prints its output.
pub(crate) async fn logs(context: &Context, kind: &str, unit: &UnitLogs) -> anyhow::Result<()> {
    let path = format!(
        "/api/v1/workspaces/{}/{kind}/{}/logs?follow={}",
        encode(&unit.workspace),
        encode(&unit.name),
        unit.follow
    );
    logs::print(context, &path, unit.follow).await
}
