//! `GET /api/v1/git-credentials`: one's own, without secrets.

use axum::extract::State;
use berth_api_types::git_credential::GitCredential;
use berth_api_types::public::Page;
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, ProblemBody, ProblemResponse, Query};

use crate::State as Service;
use crate::store::credentials;

/// List your git credentials, by host. Passwords are never shown.
#[utoipa::path(
    get,
    path = "/api/v1/git-credentials",
    operation_id = "list_git_credentials",
    tag = "git credentials",
    params(PageQuery),
    responses(
        (status = 200, description = "Yours.", body = Page<GitCredential>),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    Authenticated(principal): Authenticated,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<GitCredential>>, Problem> {
    let paging = page.of::<String>("git_credentials", &())?;
    let after = paging.after.as_deref().unwrap_or_default();
    let mut conn = state.pool.acquire().await.map_err(Problem::internal)?;
    let mut items =
        credentials::list(&mut conn, principal.user_id, after, paging.one_more()).await.map_err(Problem::internal)?;
    let next_cursor = paging.cut(&mut items, |credential| credential.host.clone());
    Ok(Json(Page { items, next_cursor }))
}
