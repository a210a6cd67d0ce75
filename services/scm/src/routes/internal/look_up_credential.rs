//! `POST /internal/git-credentials/lookup`: the credential helper's question.

use axum::extract::State;
use berth_api_types::internal::{GitCredentialReply, LookupGitCredential};
use berth_http::{Json, Problem};
use secrecy::ExposeSecret as _;

use crate::State as Service;

/// The owner's credential, if git asks for the host of the instance's own repository; no other is ever given out.
pub(crate) async fn handler(
    State(state): State<Service>,
    Json(body): Json<LookupGitCredential>,
) -> Result<Json<Option<GitCredentialReply>>, Problem> {
    let hosts = &state.resolver.hosts;
    let (Ok(host), Ok(own)) = (hosts.credential_host(&body.host), hosts.credential_host(&body.repository_host)) else {
        return Ok(Json(None));
    };
    if host != own {
        tracing::info!(instance = %body.instance_id, "git asked for a credential of a host that is not its repository's: none given");
        return Ok(Json(None));
    }
    let mut conn = state.pool.acquire().await.map_err(Problem::internal)?;
    let login = state.vault.login(&mut conn, body.user_id, &host).await?;
    Ok(Json(login.map(|login| GitCredentialReply {
        username: login.username,
        password: login.password.expose_secret().to_owned(),
    })))
}
