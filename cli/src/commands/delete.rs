//! `berth delete`.

use http::Method;

use super::{Context, encode};
use crate::args::Wait;
use crate::output;

/// Deletes a workspace; the server answers when that is done.
pub(crate) async fn run(context: &Context, wait: &Wait) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}?wait={}", encode(&wait.workspace), !wait.no_wait);
    let answer: serde_json::Value = context.client.json(Method::DELETE, &path, None::<&()>, &[]).await?;
    let name = &wait.workspace;
    // With `--no-wait` the workspace still exists; afterwards there is nothing to show.
    let (done, text) = if answer.is_null() {
        (serde_json::json!({ "deleted": name }), format!("{name}: deleted\n"))
    } else {
        (answer, format!("{name} is being deleted\n"))
    };
    output::result(context.output, &done, |_| text)
}
