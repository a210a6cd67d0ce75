//! `berth show`.

use berth_api_types::public::{Resources, Workspace};

use super::{Context, encode, receipt};
use crate::output;

/// Shows one workspace.
pub(crate) async fn run(context: &Context, workspace: &str) -> anyhow::Result<()> {
    let workspace: Workspace = context.client.get(&format!("/api/v1/workspaces/{}", encode(workspace))).await?;
    output::result(context.output, &workspace, text)
}

/// `2 cores, 4 GiB memory, 10 GiB disk, 1024 processes`.
fn resources(given: &Resources) -> String {
    let (whole, rest) = (given.cpu_millis / 1000, given.cpu_millis % 1000);
    let cores =
        if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}").trim_end_matches('0').to_owned() };
    format!(
        "{cores} {}, {} memory, {} disk, {} processes",
        if given.cpu_millis == 1000 { "core" } else { "cores" },
        output::bytes(given.memory_bytes),
        output::bytes(given.disk_bytes),
        given.pids
    )
}

fn text(workspace: &Workspace) -> String {
    let none = || "-".to_owned();
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map_or_else(none, |time| time.to_rfc3339());
    let mut rows = vec![
        ("name", workspace.name.clone()),
        ("id", workspace.id.to_string()),
        ("phase", format!("{:?}", workspace.phase)),
    ];
    if !workspace.reason.is_empty() {
        rows.push(("reason", workspace.reason.clone()));
    }
    if let Some(warning) = &workspace.timeout_warning {
        rows.push(("warning", warning.clone()));
    }
    rows.extend([
        ("repository", workspace.repository.clone()),
        ("ref", workspace.reference.clone().unwrap_or_else(none)),
        ("commit", workspace.commit.clone().unwrap_or_else(none)),
        ("folder", workspace.checkout_path.clone()),
        ("class", workspace.class.clone()),
        ("image", workspace.image.clone().or_else(|| workspace.image_digest.clone()).unwrap_or_else(none)),
        ("resources", workspace.resources.as_ref().map_or_else(none, resources)),
        ("created", workspace.created_at.to_rfc3339()),
        ("started", time(workspace.started_at)),
        ("stopped", time(workspace.stopped_at)),
    ]);
    let mut text: String = rows.iter().map(|(key, value)| format!("{key:<11} {value}\n")).collect();
    if !workspace.receipt.steps.is_empty() {
        text.push_str("receipt\n");
        text.push_str(&receipt::text(workspace));
    }
    let phases = receipt::phases(workspace);
    if !phases.is_empty() {
        text.push_str("its container, done with after\n");
        text.push_str(&output::printable(&phases));
    }
    text
}
