//! `berth start`, and waiting for a workspace to run.

use berth_api_types::public::{Phase, Workspace, WorkspaceEvent};
use futures::StreamExt as _;

use super::receipt::Live;
use super::{Context, encode, receipt};
use crate::args::Wait;
use crate::exit::{self, Exit};
use crate::output;

/// Starts it.
pub(crate) async fn run(context: &Context, wait: &Wait) -> anyhow::Result<()> {
    let mut workspace = begin(context, &wait.workspace, !wait.no_wait).await?;
    if !wait.no_wait {
        workspace = until_running(context, &workspace).await?;
    }
    output::result(context.output, &workspace, |workspace| {
        format!("{}: {:?}\n{}", workspace.name, workspace.phase, receipt::text(workspace))
    })
}

/// Asks for a start; of a workspace that is being stopped, with `patient`, once that is done.
pub(crate) async fn begin(context: &Context, workspace: &str, patient: bool) -> anyhow::Result<Workspace> {
    let (start, stop) = (
        format!("/api/v1/workspaces/{}/start?wait=false", encode(workspace)),
        format!("/api/v1/workspaces/{}/stop?wait=true", encode(workspace)),
    );
    loop {
        match context.client.post(&start, &serde_json::json!({})).await {
            Err(error) if patient && Exit::code(&error) == Some("stopping") => {
                output::note("it is being stopped: it is started when that is done");
                context.client.post::<_, Workspace>(&stop, &serde_json::json!({})).await?;
            }
            answered => return answered,
        }
    }
}

/// Follows a start, printing its steps; returns the workspace once it runs.
pub(crate) async fn until_running(context: &Context, workspace: &Workspace) -> anyhow::Result<Workspace> {
    let path = format!("/api/v1/workspaces/{}/watch", workspace.id);
    let started = workspace.instance_id;
    let mut live = Live::default();
    let mut events = context.client.events::<WorkspaceEvent>(&path).await?;
    while let Some(event) = events.next().await {
        match event? {
            WorkspaceEvent::Workspace { workspace } => {
                live.update(&workspace);
                match workspace.phase {
                    Phase::Running => {
                        live.finish();
                        return Ok(*workspace);
                    }
                    // Just after a start was accepted, a status of the previous run may still arrive.
                    Phase::Stopping | Phase::Stopped if workspace.instance_id == started => {
                        live.finish();
                        let reason = if workspace.reason.is_empty() { "it was stopped" } else { &workspace.reason };
                        return Err(Exit::new(
                            exit::WORKSPACE_FAILED,
                            format!("{} did not start: {reason}", workspace.name),
                        )
                        .into());
                    }
                    _ => {}
                }
            }
            WorkspaceEvent::Deleted { .. } => {
                live.finish();
                return Err(Exit::new(exit::NOT_FOUND, format!("{} was deleted", workspace.name)).into());
            }
            WorkspaceEvent::Synced => {}
        }
    }
    live.finish();
    Err(Exit::new(exit::UNREACHABLE, "the server went away; the start goes on: look with `berth show`").into())
}
