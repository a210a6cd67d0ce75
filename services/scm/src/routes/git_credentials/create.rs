//! `POST /api/v1/git-credentials`: keep a credential.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use berth_api_types::git_credential::{CreateGitCredential, GitCredential};
use berth_authz::Authenticated;
use berth_http::{Json, Problem, ProblemBody, ProblemResponse};
use secrecy::SecretString;

use crate::State as Service;

/// Store a git credential for a host, replacing one for the same host.
#[utoipa::path(
    post,
    path = "/api/v1/git-credentials",
    operation_id = "create_git_credential",
    tag = "git credentials",
    request_body = CreateGitCredential,
    responses(
        (status = 201, description = "Stored.", body = GitCredential),
        (status = 200, description = "A credential for the same host was replaced.", body = GitCredential),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = 422, description = "Host, user name or password are not valid.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    Authenticated(principal): Authenticated,
    Json(body): Json<CreateGitCredential>,
) -> Result<impl IntoResponse, Problem> {
    let host = state.resolver.hosts.credential_host(&body.host).map_err(|error| {
        Problem::unprocessable("invalid_host", error.to_string()).with_error("/host", "write host or host:port")
    })?;
    let username = body.username.unwrap_or_else(|| "git".to_owned());
    let password = SecretString::from(body.password);
    check_username(&username)?;
    check_password(&password)?;
    let mut transaction = state.pool.begin().await.map_err(Problem::internal)?;
    let (credential, created) =
        state.vault.keep(&mut transaction, principal.user_id, &host, &username, &password).await?;
    state.audit(&mut transaction, &principal, "git_credential.set", &host).await?;
    transaction.commit().await.map_err(Problem::internal)?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(credential)))
}

/// Git's credential protocol is lines of text, and basic authentication ends a user name at a colon.
fn check_username(username: &str) -> Result<(), Problem> {
    if !username.is_empty() && username.len() <= 255 && !username.contains(':') && !username.contains(char::is_control)
    {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "invalid_username",
        "the user name must have 1 to 255 characters, no colon and no control characters",
    )
    .with_error("/username", "not a user name"))
}

fn check_password(password: &SecretString) -> Result<(), Problem> {
    use secrecy::ExposeSecret as _;
    let text = password.expose_secret();
    if !text.is_empty() && text.len() <= 16_384 && !text.contains(char::is_control) {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "invalid_password",
        "the password or token must have 1 to 16,384 bytes and no control characters",
    )
    .with_error("/password", "not a password"))
}
