//! `DELETE /api/v1/git-credentials/{credential}`: forget one.

use axum::extract::State;
use axum::http::StatusCode;
use berth_authz::Authenticated;
use berth_http::{Path, Problem, ProblemBody, ProblemResponse};
use berth_ids::CredentialId;

use crate::State as Service;
use crate::store::credentials;

/// Forget one of your git credentials, by its id or its host.
#[utoipa::path(
    delete,
    path = "/api/v1/git-credentials/{credential}",
    operation_id = "delete_git_credential",
    tag = "git credentials",
    params(("credential" = String, Path, description = "Id, `host` or `host:port`.")),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 404, description = "You have no such credential.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    Authenticated(principal): Authenticated,
    Path(credential): Path<String>,
) -> Result<StatusCode, Problem> {
    let missing = || {
        let shown: String = credential.chars().filter(|c| !c.is_control()).take(100).collect();
        Problem::not_found(format!(
            "you have no git credential for {shown:?}: `berth git-credential list` shows what you have"
        ))
    };
    let mut transaction = state.pool.begin().await.map_err(Problem::internal)?;
    let removed = match credential.parse::<CredentialId>() {
        Ok(id) => credentials::remove_by_id(&mut transaction, principal.user_id, id).await,
        Err(_) => {
            let host = state.resolver.hosts.credential_host(&credential).map_err(|_| missing())?;
            credentials::remove_by_host(&mut transaction, principal.user_id, &host).await
        }
    }
    .map_err(Problem::internal)?;
    let host = removed.ok_or_else(missing)?;
    state.audit(&mut transaction, &principal, "git_credential.delete", &host).await?;
    transaction.commit().await.map_err(Problem::internal)?;
    Ok(StatusCode::NO_CONTENT)
}
