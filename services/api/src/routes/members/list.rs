//! `GET /api/v1/organizations/{organization}/members`.

use axum::extract::State;
use berth_api_types::public::{Member, Page};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Path, Problem, Query};

use crate::domain::authorize::ReadOrganization;
use crate::http::caller::Caller;
use crate::routes::organizations::load;
use crate::state::Api;
use crate::store;

/// Who belongs to it.
#[utoipa::path(
    get, path = "/api/v1/organizations/{organization}/members", tag = "organizations", operation_id = "list_members",
    params(("organization" = String, Path, description = "Its id"), PageQuery),
    responses((status = 200, body = Page<Member>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Path(organization): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Member>>, Problem> {
    let right = load::<ReadOrganization>(&api, &principal, &caller, &organization).await?;
    let paging = query.of("members", &right.id)?;
    let mut conn = api.connection().await?;
    let mut items = store::organizations::members(&mut conn, &right, paging.after, paging.one_more()).await?;
    let next_cursor = paging.cut(&mut items, |member| member.user_id);
    Ok(Json(Page { items, next_cursor }))
}
