//! `GET /api/v1/organizations`.

use axum::extract::State;
use berth_api_types::public::{Organization, Page};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, Query};

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
    let paging = query.of("organizations", &())?;
    let mut conn = api.connection().await?;
    let mut items = store::organizations::list(&mut conn, principal.user_id, paging.after, paging.one_more()).await?;
    let next_cursor = paging.cut(&mut items, |organization| organization.id);
    Ok(Json(Page { items, next_cursor }))
}
