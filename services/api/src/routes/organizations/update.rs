//! `PATCH /api/v1/organizations/{organization}`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{Organization, UpdateOrganization};
use berth_authz::Authenticated;
use berth_http::{Json, Path, Problem};

use super::load;
use crate::domain::authorize;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::http::headers::IfMatch;
use crate::routes::users;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Changes an organization's settings, for its owners.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{organization}", tag = "organizations", operation_id = "update_organization",
    request_body = UpdateOrganization,
    params(
        ("organization" = String, Path, description = "Its id"),
        IfMatch
    ),
    responses((status = 200, body = Organization), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn update(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Path(organization): Path<String>,
    Json(body): Json<UpdateOrganization>,
) -> Result<Response, Problem> {
    let right = load::<authorize::UpdateOrganization>(&api, &principal, &caller, &organization).await?;
    let expected = ETag::expected(&headers)?;
    let name = body.name.as_deref().map(|name| users::name(name, "/name")).transpose()?;
    let mut transaction = api.begin().await?;
    let (name, expected) = (name.as_deref(), expected.as_deref());
    let changed = store::organizations::update(&mut transaction, &right, name, expected, api.now()).await?;
    let (organization, revision) = changed.ok_or_else(ETag::mismatch)?;
    let record = Record::by(&principal, &caller, right.action());
    let record = record.on("organization", organization.id.as_uuid(), &organization.name);
    api.audit(&mut transaction, record).await?;
    commit(transaction).await?;
    Ok(([(header::ETAG, ETag::of(revision).header())], Json(organization)).into_response())
}
