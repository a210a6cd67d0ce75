//! The HTTP operations: a folder a noun, a file a verb.

mod audit;
mod classes;
mod internal;
mod members;
mod organizations;
mod server;
mod sessions;
mod setup;
mod tokens;
mod users;
mod workspaces;

use std::sync::Arc;

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use berth_http::only_declared;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::layers;
use crate::openapi;
use crate::state::Api;

/// Operations for those who have not signed in yet.
fn open() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(setup::show::show, setup::create::create))
        .routes(routes!(sessions::create::create))
}

/// Operations that need credentials.
fn closed() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(server::show::show))
        .routes(routes!(sessions::list::list))
        .routes(routes!(sessions::delete::delete))
        .routes(routes!(users::list::list, users::create::create))
        .routes(routes!(users::me::me, users::update_me::update_me))
        .routes(routes!(users::change_password::change_password))
        .routes(routes!(tokens::list::list, tokens::create::create))
        .routes(routes!(tokens::revoke::revoke))
        .routes(routes!(organizations::list::list, organizations::create::create))
        .routes(routes!(organizations::show::show, organizations::update::update))
        .routes(routes!(members::list::list, members::add::add))
        .routes(routes!(members::update::update, members::remove::remove))
        .routes(routes!(classes::list::list))
        .routes(routes!(workspaces::list::list, workspaces::create::create))
        .routes(routes!(workspaces::watch::watch_all))
        .routes(routes!(workspaces::show::show, workspaces::update::update, workspaces::delete::delete))
        .routes(routes!(workspaces::start::start))
        .routes(routes!(workspaces::stop::stop))
        .routes(routes!(workspaces::receipt::receipt))
        .routes(routes!(workspaces::watch::watch_one))
        .routes(routes!(audit::list::list))
}

/// The document of all operations of this service and of the others.
pub(crate) fn document(others: Vec<OpenApi>) -> OpenApi {
    let (_, open) = open().split_for_parts();
    let (_, closed) = closed().split_for_parts();
    openapi::assemble(open, [vec![closed], others].concat())
}

pub(crate) fn public(api: &Api, others: Vec<OpenApi>) -> Router {
    let text: Arc<str> = openapi::text(&document(others)).into();
    let open = only_declared(open().split_for_parts());
    let closed = only_declared(closed().split_for_parts());
    let closed = layers::protect(api, closed.with_state(api.clone()));
    open.with_state(api.clone())
        .merge(closed)
        .route("/openapi.json", get(move || std::future::ready(json(Arc::clone(&text)))))
        .layer(Extension(api.authenticator()))
        .merge(crate::pages::router())
}

fn json(text: Arc<str>) -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], text.to_string())
}

pub(crate) fn internal(api: &Api) -> Router {
    Router::new()
        .route("/internal/authenticate", axum::routing::post(internal::authenticate::authenticate))
        .route("/internal/authorize", axum::routing::post(internal::authorize::authorize))
        .route("/internal/workspaces/{workspace}", get(internal::show_workspace::show_workspace))
        .with_state(api.clone())
}
