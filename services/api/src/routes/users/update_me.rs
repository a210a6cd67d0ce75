//! `PATCH /api/v1/users/me`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{UpdateUser, User};
use berth_authz::Authenticated;
use berth_http::{Json, Problem};

use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::http::headers::IfMatch;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Changes the caller's profile. What git uses in a workspace changes with its next start.
#[utoipa::path(
    patch, path = "/api/v1/users/me", tag = "users", operation_id = "update_me", request_body = UpdateUser,
    params(IfMatch),
    responses((status = 200, body = User), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn update_me(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<UpdateUser>,
) -> Result<Response, Problem> {
    let expected = ETag::expected(&headers)?;
    let name = body.name.as_deref().map(|name| super::name(name, "/name")).transpose()?;
    let git_email = body.git_email.as_deref().map(|email| super::address(email, "/git_email")).transpose()?;
    let mut transaction = api.begin().await?;
    let (name, git_email, expected) = (name.as_deref(), git_email.as_deref(), expected.as_deref());
    let row = store::users::update(&mut transaction, principal.user_id, name, git_email, expected, api.now()).await?;
    let row = row.ok_or_else(ETag::mismatch)?;
    let record = Record::by(&principal, &caller, "user.update").on("user", row.id.as_uuid(), &row.email);
    let record = record.detail(serde_json::json!({ "name": row.name, "git_email": row.git_email }));
    api.audit(&mut transaction, record).await?;
    api.changes().notify_user(&mut transaction, principal.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(principal.user_id));
    let tag = ETag::of(row.revision);
    Ok(([(header::ETAG, tag.header())], Json(User::from(row))).into_response())
}
