//! `berth login` and `berth logout`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use anyhow::Context as _;
use berth_api_types::public::User;

use super::{Context, credentials};
use crate::args::{Global, Output};
use crate::client::{Client, Target};
use crate::output;

/// Checks a token with the server, then keeps it.
pub(crate) async fn login(context: &Context, global: &Global, url: &str) -> anyhow::Result<()> {
    let parsed = credentials::parse(url)?;
    let token = match &global.token {
        Some(token) => token.clone(),
        None => {
            if std::io::stdin().is_terminal() {
                output::note(format!("Make a token on {url} (or with `berth token create` there), and paste it here:"));
            }
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("standard input")?;
            line.trim().to_owned()
        }
    };
    anyhow::ensure!(
        !token.is_empty(),
        "no token was given: pipe it in, as in `berth login {url} < token.txt`, or set BERTH_TOKEN"
    );
    let client = Client::new(Target::Remote { url: parsed, token: Some(token.clone()), ca: global.ca_cert.clone() });
    let user: User = client.get("/api/v1/users/me").await?;
    let file = keep(global, url, token)?;
    output::result(context.output, &user, |user| {
        format!("signed in to {url} as {} (kept in {})", user.email, file.display())
    })
}

/// Keeps a token that is good at a server; returns the file.
pub(crate) fn keep(global: &Global, url: &str, token: String) -> anyhow::Result<PathBuf> {
    let ca_cert = global.ca_cert.as_ref().map(std::path::absolute).transpose()?;
    credentials::store(&credentials::Stored { url: url.to_owned(), token, ca_cert })
}

/// Forgets the stored sign-in.
pub(crate) fn logout(format: Output) -> anyhow::Result<()> {
    let signed_out = credentials::forget()?;
    output::result(format, &serde_json::json!({ "signed_out": signed_out }), |_| {
        if signed_out { "signed out" } else { "there was no sign-in" }.to_owned()
    })
}
