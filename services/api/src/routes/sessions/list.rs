//! `GET /api/v1/sessions`.

use axum::extract::State;
use berth_api_types::public::{Page, Session};
use berth_authz::{Authenticated, Credential};
use berth_http::{Json, Problem};

use crate::state::Api;
use crate::store;

/// The caller's signed-in browsers.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "sessions", operation_id = "list_sessions",
    responses((status = 200, body = Page<Session>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
) -> Result<Json<Page<Session>>, Problem> {
    let current = match principal.credential {
        Credential::Session { id } => Some(id),
        Credential::Token { .. } | Credential::Local => None,
    };
    let mut conn = api.connection().await?;
    let items = store::sessions::list(&mut conn, principal.user_id, current, api.now()).await?;
    Ok(Json(Page { items, next_cursor: None }))
}
