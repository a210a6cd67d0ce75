//! The operations, one file each.

mod access;
mod automations;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::State;

fn api() -> OpenApiRouter<State> {
    use automations::{list, logs, reload, show, start, stop};
    OpenApiRouter::new()
        .routes(routes!(list::tasks))
        .routes(routes!(list::services))
        .routes(routes!(show::task))
        .routes(routes!(show::service))
        .routes(routes!(start::task))
        .routes(routes!(start::service))
        .routes(routes!(stop::task))
        .routes(routes!(stop::service))
        .routes(routes!(logs::task))
        .routes(routes!(logs::service))
        .routes(routes!(reload::handler))
}

/// Routes below `/api/v1`.
pub(crate) fn public(state: &State) -> Router {
    let (router, _) = api().split_for_parts();
    router.with_state(state.clone())
}

/// What the public routes look like.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    api().split_for_parts().1
}
