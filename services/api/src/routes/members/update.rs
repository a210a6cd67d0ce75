//! `PUT /api/v1/organizations/{organization}/members/{user}`.

use axum::extract::State;
use berth_api_types::public::{Member, UpdateMember};
use berth_authz::Authenticated;
use berth_http::{Json, Path, Problem};
use berth_ids::UserId;

use super::changed;
use crate::domain::authorize::ManageMembers;
use crate::http::caller::Caller;
use crate::routes::organizations::load;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Gives a member another role; for owners. There is always an owner.
#[utoipa::path(
    put, path = "/api/v1/organizations/{organization}/members/{user}", tag = "organizations", operation_id = "update_member",
    request_body = UpdateMember,
    params(("organization" = String, Path, description = "Its id"), ("user" = String, Path, description = "The member's id")),
    responses((status = 200, body = Member), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn update(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path((organization, user)): Path<(String, String)>,
    Json(body): Json<UpdateMember>,
) -> Result<Json<Member>, Problem> {
    let right = load::<ManageMembers>(&api, &principal, &caller, &organization).await?;
    let user: UserId = user.parse().map_err(|_| Problem::not_found("they are not a member of this organization"))?;
    let mut transaction = api.begin().await?;
    let member = changed(store::organizations::set_role(&mut transaction, &right, user, body.role).await?)?;
    let record = Record::by(&principal, &caller, "member.update").on("organization", right.id.as_uuid(), &member.email);
    let detail = serde_json::json!({ "user_id": user, "role": body.role });
    api.audit(&mut transaction, record.detail(detail)).await?;
    api.changes().notify_user(&mut transaction, user).await?;
    commit(transaction).await?;
    api.cache().forget(Some(user));
    Ok(Json(member))
}
