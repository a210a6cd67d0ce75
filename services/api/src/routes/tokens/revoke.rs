//! `DELETE /api/v1/tokens/{token}`.

use axum::extract::State;
use axum::http::StatusCode;
use berth_authz::Authenticated;
use berth_http::{Path, Problem};
use berth_ids::TokenId;

use crate::http::caller::Caller;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Ends one of the caller's tokens, at once.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{token}", tag = "tokens", operation_id = "revoke_token",
    params(("token" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is revoked"), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn revoke(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::not_found("there is no such token: `berth token list` shows yours");
    let id: TokenId = token.parse().map_err(|_| unknown())?;
    let mut transaction = api.begin().await?;
    let name = store::tokens::revoke(&mut transaction, principal.user_id, id, api.now()).await?.ok_or_else(unknown)?;
    let record = Record::by(&principal, &caller, "token.revoke").on("token", id.as_uuid(), name);
    api.audit(&mut transaction, record).await?;
    api.changes().notify_user(&mut transaction, principal.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(principal.user_id));
    Ok(StatusCode::NO_CONTENT)
}
