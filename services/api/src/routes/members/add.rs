//! `POST /api/v1/organizations/{organization}/members`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{AddMember, Member};
use berth_authz::Authenticated;
use berth_http::{Json, Path, Problem};

use crate::domain::authorize::ManageMembers;
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::routes::organizations::load;
use crate::routes::users;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Adds somebody who has an account, by its e-mail address; for owners.
#[utoipa::path(
    post, path = "/api/v1/organizations/{organization}/members", tag = "organizations", operation_id = "add_member",
    request_body = AddMember,
    params(
        ("organization" = String, Path, description = "Its id"),
        IdempotencyKey
    ),
    responses((status = 201, body = Member), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn add(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(organization): Path<String>,
    Json(body): Json<AddMember>,
) -> Result<Response, Problem> {
    let right = load::<ManageMembers>(&api, &principal, &caller, &organization).await?;
    let email = users::address(&body.email, "/email")?;
    let mut transaction = api.begin().await?;
    let added = store::organizations::add_member(&mut transaction, &right, &email, body.role, api.now()).await?;
    let member = added.ok_or_else(|| {
        let detail = "there is no account with this address: an administrator makes accounts";
        Problem::unprocessable("unknown_user", detail).with_error("/email", detail)
    })?;
    let record = Record::by(&principal, &caller, "member.add").on("organization", right.id.as_uuid(), &member.email);
    let detail = serde_json::json!({ "user_id": member.user_id, "role": member.role });
    api.audit(&mut transaction, record.detail(detail)).await?;
    api.changes().notify_user(&mut transaction, member.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(member.user_id));
    Ok((StatusCode::CREATED, Json(member)).into_response())
}
