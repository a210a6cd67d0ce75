//! `DELETE /api/v1/organizations/{organization}/members/{user}`.

use axum::extract::State;
use axum::http::StatusCode;
use berth_authz::Authenticated;
use berth_http::{Path, Problem};
use berth_ids::UserId;

use super::changed;
use crate::domain::authorize::{LeaveOrganization, ManageMembers};
use crate::http::caller::Caller;
use crate::routes::organizations::load;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;
use crate::store::organizations::Removal;

/// Removes a member: an owner removes anybody, a member themself. Their workspaces stay theirs, and start again only under another organization.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{organization}/members/{user}", tag = "organizations", operation_id = "remove_member",
    params(
        ("organization" = String, Path, description = "Its id"),
        ("user" = String, Path, description = "The member's id, or `me`")
    ),
    responses((status = 204, description = "They are not a member"), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn remove(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path((organization, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user: Option<UserId> = if user == "me" { Some(principal.user_id) } else { user.parse().ok() };
    let right = if user == Some(principal.user_id) {
        Removal::Self_(load::<LeaveOrganization>(&api, &principal, &caller, &organization).await?)
    } else {
        Removal::Other(load::<ManageMembers>(&api, &principal, &caller, &organization).await?)
    };
    let user = user.ok_or_else(|| Problem::not_found("they are not a member of this organization"))?;
    let mut transaction = api.begin().await?;
    let member = changed(store::organizations::remove_member(&mut transaction, &right, user).await?)?;
    let organization = match &right {
        Removal::Other(right) => right.id,
        Removal::Self_(right) => right.id,
    };
    let record = Record::by(&principal, &caller, "member.remove");
    let record = record.on("organization", organization.as_uuid(), &member.email);
    api.audit(&mut transaction, record.detail(serde_json::json!({ "user_id": user }))).await?;
    api.changes().notify_user(&mut transaction, user).await?;
    commit(transaction).await?;
    api.cache().forget(Some(user));
    Ok(StatusCode::NO_CONTENT)
}
