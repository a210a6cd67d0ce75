//! `GET /api/v1/classes`.

use axum::extract::State;
use berth_api_types::internal::Class;
use berth_api_types::public::Page;
use berth_authz::Authenticated;
use berth_http::{Json, Problem};

use crate::state::Api;

/// The classes of workspaces, with their resources and prices.
#[utoipa::path(
    get, path = "/api/v1/classes", tag = "classes", operation_id = "list_classes",
    responses((status = 200, body = Page<Class>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(_principal): Authenticated,
) -> Result<Json<Page<Class>>, Problem> {
    let classes = api.classes().await?;
    Ok(Json(Page { items: classes.to_vec(), next_cursor: None }))
}
