//! `GET /api/v1/users`.

use axum::extract::State;
use berth_api_types::public::{Page, User};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Json, PageQuery, Problem, Query};

use crate::domain::authorize::{Installation, ListUsers};
use crate::state::Api;
use crate::store;

/// Every account, for administrators.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users", operation_id = "list_users", params(PageQuery),
    responses((status = 200, body = Page<User>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<User>>, Problem> {
    let right = Authorized::<Installation, ListUsers>::check(&principal, Installation)?;
    let paging = query.of("users", &())?;
    let mut conn = api.connection().await?;
    let rows = store::users::list(&mut conn, &right, paging.after, paging.one_more()).await?;
    let mut items = rows.into_iter().map(User::from).collect();
    let next_cursor = paging.cut(&mut items, |user: &User| user.id);
    Ok(Json(Page { items, next_cursor }))
}
