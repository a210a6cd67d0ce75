//! `DELETE /api/v1/sessions/{session}`: logout.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_authz::{Authenticated, Credential};
use berth_http::{Path, Problem};
use berth_ids::SessionId;

use crate::http::caller::Caller;
use crate::http::cookie;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Ends one of the caller's sessions; `current` is the one that asks.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{session}", tag = "sessions", operation_id = "delete_session",
    params(("session" = String, Path, description = "Its id, or `current`")),
    responses((status = 204, description = "It is over"), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn delete(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(session): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("there is no such session");
    let current = match principal.credential {
        Credential::Session { id } => Some(id),
        Credential::Token { .. } | Credential::Local => None,
    };
    let id: SessionId = match (session.as_str(), current) {
        ("current", Some(id)) => id,
        (text, _) => text.parse().map_err(|_| unknown())?,
    };
    let mut transaction = api.begin().await?;
    if !store::sessions::delete(&mut transaction, principal.user_id, id).await? {
        return Err(unknown());
    }
    let record = Record::by(&principal, &caller, "session.delete").on("session", id.as_uuid(), "");
    api.audit(&mut transaction, record).await?;
    api.changes().notify_user(&mut transaction, principal.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(principal.user_id));
    let mut response = StatusCode::NO_CONTENT.into_response();
    if current == Some(id) {
        response.headers_mut().append(header::SET_COOKIE, cookie::clear());
    }
    Ok(response)
}
