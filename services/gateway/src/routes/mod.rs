//! The public API of the gateway.

mod exec;
mod files;
mod logs;
mod ports;
mod terminals;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

use crate::Gateway;

/// All of it.
pub(crate) fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/api/v1/workspaces/{workspace}/exec", get(exec::handle))
        .route("/api/v1/workspaces/{workspace}/terminals", get(terminals::list).post(terminals::open))
        .route("/api/v1/workspaces/{workspace}/terminals/{terminal}", get(terminals::attach).delete(terminals::close))
        .route("/api/v1/workspaces/{workspace}/ports", get(ports::list))
        .route("/api/v1/workspaces/{workspace}/ports/watch", get(ports::watch))
        .route("/api/v1/workspaces/{workspace}/ports/{port}/connect", get(ports::connect))
        // A tree of files is as big as it is; it is streamed, never held.
        .route(
            "/api/v1/workspaces/{workspace}/files",
            get(files::download).put(files::upload).layer(DefaultBodyLimit::disable()),
        )
        .route("/api/v1/workspaces/{workspace}/logs", get(logs::handle))
        .with_state(gateway)
}

/// A list as every list of the API.
#[derive(Debug, serde::Serialize)]
struct Items<T> {
    items: Vec<T>,
}
