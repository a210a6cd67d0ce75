//! `POST /api/v1/organizations`.

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{CreateOrganization, Organization};
use berth_authz::Authenticated;
use berth_http::{Json, Problem};
use berth_ids::OrganizationId;

use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::layers::idempotency::Held;
use crate::routes::users;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Makes an organization; the caller is its first owner.
#[utoipa::path(
    post, path = "/api/v1/organizations", tag = "organizations", operation_id = "create_organization", request_body = CreateOrganization,
    params(IdempotencyKey),
    responses((status = 201, body = Organization), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    held: Option<Extension<Held>>,
    Json(body): Json<CreateOrganization>,
) -> Result<Response, Problem> {
    let name = users::name(&body.name, "/name")?;
    let id = held.as_ref().and_then(|held| held.made_before).map(OrganizationId::from_uuid);
    let mut transaction = api.begin().await?;
    let organization = match id {
        // An earlier try of this request made it, and died before it could answer.
        Some(id) => {
            let mine = store::organizations::list(&mut transaction, principal.user_id, None, i64::MAX).await?;
            mine.into_iter().find(|organization| organization.id == id)
        }
        None => None,
    };
    let organization = match organization {
        Some(organization) => organization,
        None => {
            let id = OrganizationId::new(api.clock(), api.entropy());
            let now = api.now();
            let made = store::organizations::insert(&mut transaction, id, &name, principal.user_id, now).await?;
            let record = Record::by(&principal, &caller, "organization.create").on("organization", id.as_uuid(), name);
            api.audit(&mut transaction, record).await?;
            if let Some(Extension(held)) = held {
                store::idempotency::note_resource(&mut transaction, held.user, &held.key, id.as_uuid()).await?;
            }
            made
        }
    };
    api.changes().notify_user(&mut transaction, principal.user_id).await?;
    commit(transaction).await?;
    api.cache().forget(Some(principal.user_id));
    let location = format!("/api/v1/organizations/{}", organization.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(organization)).into_response())
}
