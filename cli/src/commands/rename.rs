//! `berth rename`.

use berth_api_types::public::{UpdateWorkspace, Workspace};
use http::Method;

use super::{Context, encode};
use crate::output;

/// Renames it, unless it was changed meanwhile.
pub(crate) async fn run(context: &Context, workspace: &str, name: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}", encode(workspace));
    let response = context.client.send(Method::GET, &path, Vec::new(), &[]).await?;
    let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).unwrap_or("*").to_owned();
    let update = UpdateWorkspace { name: Some(name.to_owned()), ..UpdateWorkspace::default() };
    let workspace: Workspace = context.client.json(Method::PATCH, &path, Some(&update), &[("if-match", &etag)]).await?;
    output::result(context.output, &workspace, |workspace| format!("renamed to {}", workspace.name))
}
