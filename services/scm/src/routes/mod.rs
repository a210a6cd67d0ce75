//! The operations, one file each.

mod git_credentials;
mod internal;
mod problem;

use std::sync::Arc;

use axum::{Extension, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::State;

fn api() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(git_credentials::list::handler, git_credentials::create::handler))
        .routes(routes!(git_credentials::delete::handler))
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

/// Routes below `/internal`.
pub(crate) fn internal(state: &State) -> Router {
    Router::new()
        .route("/internal/contexts/resolve", axum::routing::post(internal::resolve_context::handler))
        .route("/internal/private-hosts", axum::routing::post(internal::list_private_hosts::handler))
        .route("/internal/git-credentials/lookup", axum::routing::post(internal::look_up_credential::handler))
        .with_state(state.clone())
}
