//! `GET /api/v1/organizations`.

use axum::extract::State;
use berth_api_types::public::{Organization, Page};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, Query};

use crate::paging::{one_more, page};
use crate::state::Api;
use crate::store;

/// Where the caller is a member.
#[utoipa::path(
    get, path = "/api/v1/organizations", tag = "organizations", operation_id = "list_organizations", params(PageQuery),
    responses((status = 200, body = Page<Organization>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Organization>>, Problem> {
    let limit = query.limit()?;
    let mut conn = api.connection().await?;
    let rows = store::organizations::list(&mut conn, principal.user_id, query.position()?, one_more(limit)).await?;
    Ok(Json(page(rows, limit, |organization| organization.id)))
}
