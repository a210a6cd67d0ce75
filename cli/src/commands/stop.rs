//! `berth stop`.

use berth_api_types::public::{Phase, Workspace};

use super::{Context, encode};
use crate::args::Wait;
use crate::output;

/// Stops a workspace; the server answers when that is done.
pub(crate) async fn run(context: &Context, wait: &Wait) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}/stop?wait={}", encode(&wait.workspace), !wait.no_wait);
    let workspace: Workspace = context.client.post(&path, &serde_json::json!({})).await?;
    output::result(context.output, &workspace, |workspace| match workspace.phase {
        Phase::Stopped => format!("{}: {:?}", workspace.name, workspace.phase),
        _ => format!("{} is being stopped: follow it with `berth show {0}`", workspace.name),
    })
}
