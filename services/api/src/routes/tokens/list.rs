//! `GET /api/v1/tokens`.

use axum::extract::State;
use berth_api_types::public::{Page, Token};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, Query};

use crate::paging::{one_more, page};
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
    let limit = query.limit()?;
    let mut conn = api.connection().await?;
    let tokens = store::tokens::list(&mut conn, principal.user_id, query.position()?, one_more(limit)).await?;
    Ok(Json(page(tokens, limit, |token| token.id)))
}
