//! The public API of the gateway.

mod exec;
mod files;
mod logs;
mod ports;
mod terminals;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::Gateway;

fn api() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(exec::handle))
        .routes(routes!(terminals::list, terminals::open))
        .routes(routes!(terminals::attach, terminals::close))
        .routes(routes!(ports::list))
        .routes(routes!(ports::watch))
        .routes(routes!(ports::connect))
        // A tree of files is as big as it is; it is streamed, never held.
        .routes(routes!(files::download, files::upload).layer(DefaultBodyLimit::disable()))
        .routes(routes!(logs::handle))
}

/// All of it.
pub(crate) fn router(gateway: Gateway) -> Router {
    berth_http::only_declared(api().split_for_parts()).with_state(gateway)
}

/// What the routes look like.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    api().split_for_parts().1
}

/// A list, like every list of the API.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct Items<T> {
    /// All of them.
    items: Vec<T>,
}
