//! `berth delete`.

use http::Method;

use super::{Context, encode};
use crate::args::{Output, Wait};
use crate::output;

/// Deletes it; the server answers when it is done.
pub(crate) async fn run(context: &Context, wait: &Wait) -> anyhow::Result<()> {
    let path = format!("/api/v1/workspaces/{}?wait={}", encode(&wait.workspace), !wait.no_wait);
    let answer: serde_json::Value = context.client.json(Method::DELETE, &path, None::<&()>, &[]).await?;
    let done = if answer.is_null() { serde_json::json!({ "deleted": wait.workspace }) } else { answer };
    match context.output {
        Output::Json => output::result(Output::Json, &done, |_| String::new()),
        Output::Text => output::write(format!("{}: deleted\n", wait.workspace).as_bytes()),
    }
}
