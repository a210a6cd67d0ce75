//! What tasks and services have in common.

use http::Method;

use super::{Context, encode, logs};
use crate::args::{Unit, UnitLogs};
use crate::output::{self, cell};

/// Lists the tasks or services of a workspace.
pub(crate) async fn list(context: &Context, kind: &str, workspace: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        context.client.get(&format!("/api/v1/workspaces/{}/{kind}", encode(workspace))).await?;
    output::result(context.output, &value, listed)
}

/// A table, and what there is to say about the file they come from.
fn listed(value: &serde_json::Value) -> String {
    let row = |item: &serde_json::Value| ["reference", "name", "phase", "reason"].map(|key| cell(&item[key])).to_vec();
    let rows: Vec<Vec<String>> = output::items(value).iter().map(row).collect();
    let mut text = output::table(&["KEY", "NAME", "PHASE", "REASON"], &rows);
    let file = &value["file"];
    let path = file["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("the automations file");
    if matches!(file["state"].as_str(), Some("refused" | "unreadable")) {
        text.push_str(&format!("\n{path} was refused; what is listed is of before:\n"));
    }
    for (findings, suffix) in [("errors", ""), ("warnings", " (note)")] {
        for finding in file[findings].as_array().into_iter().flatten() {
            let [line, column, message] = ["line", "column", "message"].map(|key| cell(&finding[key]));
            text.push_str(&format!("{path}:{line}:{column}: {message}{suffix}\n"));
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::listed;

    #[test]
    fn a_refused_file_and_its_notes_are_told() {
        let item = json!({ "reference": "a", "name": "A", "phase": "Idle", "reason": "" });
        let finding = |message: &str| json!([{ "line": 4, "column": 5, "message": message }]);
        let file = |state: &str, errors, warnings| json!({ "state": state, "path": ".ona/automations.yaml", "errors": errors, "warnings": warnings });
        let text = listed(&json!({ "items": [item], "file": file("refused", finding("no key"), json!([])) }));
        assert!(text.starts_with("KEY  NAME  PHASE  REASON\na    A     Idle\n"), "{text}");
        assert!(text.contains("was refused") && text.ends_with(".ona/automations.yaml:4:5: no key\n"), "{text}");
        let text = listed(&json!({ "items": [], "file": file("applied", json!([]), finding("not fired yet")) }));
        assert!(
            !text.contains("refused") && text.ends_with(".ona/automations.yaml:4:5: not fired yet (note)\n"),
            "{text}"
        );
    }
}
