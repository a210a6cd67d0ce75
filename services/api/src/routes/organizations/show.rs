//! `GET /api/v1/organizations/{organization}`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::Organization;
use berth_authz::{Authenticated, Denied};
use berth_http::{Json, Path, Problem};

use super::load;
use crate::domain::authorize::ReadOrganization;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::state::Api;
use crate::store;

/// One organization.
#[utoipa::path(
    get, path = "/api/v1/organizations/{organization}", tag = "organizations", operation_id = "show_organization",
    params(("organization" = String, Path, description = "Its id")),
    responses((status = 200, body = Organization), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn show(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(organization): Path<String>,
) -> Result<Response, Problem> {
    let right = load::<ReadOrganization>(&api, &principal, &caller, &organization).await?;
    let mut conn = api.connection().await?;
    let found = store::organizations::get(&mut conn, &right).await?;
    let (organization, revision) = found.ok_or(Denied::Hidden { noun: "organization" })?;
    Ok(([(header::ETAG, ETag::of(revision).header())], Json(organization)).into_response())
}
