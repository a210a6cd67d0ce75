//! `berth git-credential`.

use std::io::{IsTerminal as _, Read as _};

use http::Method;

use super::{Context, encode};
use crate::args::GitCredential;
use crate::output;

/// Stores, lists and removes git credentials.
pub(crate) async fn run(context: &Context, command: GitCredential) -> anyhow::Result<()> {
    match command {
        GitCredential::Add { host, username } => {
            if std::io::stdin().is_terminal() {
                output::note(format!("Paste the password or token for {host}, then Enter and Ctrl-D:"));
            }
            let mut password = String::new();
            std::io::stdin().read_to_string(&mut password)?;
            let password = password.trim_end_matches(['\r', '\n']);
            anyhow::ensure!(
                !password.is_empty(),
                "no password was given: pipe it in, as in `berth git-credential add {host} < token.txt`"
            );
            let body = serde_json::json!({ "host": host, "username": username, "password": password });
            let added: serde_json::Value = context.client.post("/api/v1/git-credentials", &body).await?;
            output::result(context.output, &added, |_| format!("stored the credential of {username} for {host}"))
        }
        GitCredential::List => {
            let page: serde_json::Value = context.client.get("/api/v1/git-credentials").await?;
            let items = page.get("items").cloned().unwrap_or(page);
            output::result(context.output, &items, |items| {
                let rows: Vec<Vec<String>> = items
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| {
                        ["host", "username", "created_at"]
                            .iter()
                            .map(|key| item[*key].as_str().unwrap_or("-").to_owned())
                            .collect()
                    })
                    .collect();
                output::table(&["HOST", "USERNAME", "CREATED"], &rows)
            })
        }
        GitCredential::Remove { host } => {
            let path = format!("/api/v1/git-credentials/{}", encode(&host));
            let _: serde_json::Value = context.client.json(Method::DELETE, &path, None::<&()>, &[]).await?;
            output::result(context.output, &serde_json::json!({ "removed": host }), |_| "removed".to_owned())
        }
    }
}
