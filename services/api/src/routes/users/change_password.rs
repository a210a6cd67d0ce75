//! `PUT /api/v1/users/me/password`.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::public::{AuditResult, ChangePassword};
use berth_authz::{Authenticated, Credential};
use berth_http::{Json, Problem};
use secrecy::SecretString;

use crate::domain::password::Checked;
use crate::http::caller::Caller;
use crate::routes::sessions::begin;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Changes the caller's password and ends their other sessions.
#[utoipa::path(
    put, path = "/api/v1/users/me/password", tag = "users", operation_id = "change_password", request_body = ChangePassword,
    responses((status = 204, description = "It is in force from now on"), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn change_password(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Json(body): Json<ChangePassword>,
) -> Result<StatusCode, Problem> {
    if principal.credential == Credential::Local {
        return Err(Problem::unprocessable(
            "no_password",
            "the unix socket's administrator never signs in with a password",
        ));
    }
    begin::limit(&api, &caller, &principal.email)?;
    let new = SecretString::from(body.new);
    super::strong(&new, &principal.email, "/new")?;
    let mut conn = api.connection().await?;
    let hash = store::users::password_hash(&mut conn, principal.user_id).await?;
    drop(conn);
    let record =
        Record::by(&principal, &caller, "user.password").on("user", principal.user_id.as_uuid(), &principal.email);
    if hash.is_some() {
        let current = SecretString::from(body.current.unwrap_or_default());
        let checked = api.passwords().check(current, hash).await.map_err(Problem::internal)?;
        if checked == Checked::Wrong {
            let mut conn = api.connection().await?;
            api.audit(&mut conn, record.result(AuditResult::Denied)).await?;
            let detail = "the current password is wrong";
            return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_password", detail).with_error("/current", detail));
        }
    }
    let hash = api.passwords().hash(new).await.map_err(Problem::internal)?;
    let keep = match principal.credential {
        Credential::Session { id } => Some(id),
        Credential::Token { .. } | Credential::Local => None,
    };
    let mut transaction = api.begin().await?;
    store::users::set_password(&mut transaction, principal.user_id, &hash, api.now()).await?;
    store::sessions::delete_others(&mut transaction, principal.user_id, keep).await?;
    api.audit(&mut transaction, record).await?;
    api.changes().notify_user(&mut transaction, principal.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(principal.user_id));
    Ok(StatusCode::NO_CONTENT)
}
