//! `GET /api/v1/users/me`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::User;
use berth_authz::Authenticated;
use berth_http::{Json, Problem};

use crate::http::etag::ETag;
use crate::state::Api;
use crate::store;

/// Who the credentials belong to.
#[utoipa::path(
    get, path = "/api/v1/users/me", tag = "users", operation_id = "show_me",
    responses((status = 200, body = User), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn me(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
) -> Result<Response, Problem> {
    let mut conn = api.connection().await?;
    let row = store::users::find(&mut conn, principal.user_id).await?;
    let row = row.ok_or_else(|| Problem::not_found("this account was removed"))?;
    let tag = ETag::of(row.revision);
    Ok(([(header::ETAG, tag.header())], Json(User::from(row))).into_response())
}
