//! `GET /api/v1/tokens`.

use axum::extract::State;
use berth_api_types::public::{Page, Token};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, Query};

use crate::state::Api;
use crate::store;

/// The caller's tokens that were not revoked, the newest first.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens", operation_id = "list_tokens", params(PageQuery),
    responses((status = 200, body = Page<Token>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Token>>, Problem> {
    let paging = query.of("tokens", &())?;
    let mut conn = api.connection().await?;
    let mut items = store::tokens::list(&mut conn, principal.user_id, paging.after, paging.one_more()).await?;
    let next_cursor = paging.cut(&mut items, |token| token.id);
    Ok(Json(Page { items, next_cursor }))
}
