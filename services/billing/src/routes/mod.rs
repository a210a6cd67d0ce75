//! The operations, one file each.

mod usage;

use std::sync::Arc;

use axum::{Extension, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::State;

fn api() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(usage::list::handler)).routes(routes!(usage::export::handler))
}

/// Routes below `/api/v1`.
pub(crate) fn public(state: &State) -> Router {
    let router = berth_http::only_declared(api().split_for_parts());
    router.layer(Extension(Arc::clone(&state.authenticator))).with_state(state.clone())
}

/// What the public routes look like.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    api().split_for_parts().1
}
