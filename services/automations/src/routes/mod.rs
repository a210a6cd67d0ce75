//! The operations, one file each.

mod access;
mod automations;
mod of_kind;

use axum::Router;
use berth_api_types::automations::AutomationKind;
use berth_http::only_declared;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::State;
use automations::{list, logs, reload, show, start, stop};
use of_kind::{OfKind, named};

/// What tasks and services have alike.
fn alike(kind: AutomationKind) -> OpenApiRouter<OfKind> {
    OpenApiRouter::new()
        .routes(named(kind, routes!(list::handler)))
        .routes(named(kind, routes!(show::handler)))
        .routes(named(kind, routes!(start::handler)))
        .routes(named(kind, routes!(stop::handler)))
        .routes(named(kind, routes!(logs::handler)))
}

fn of_the_file() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(reload::handler))
}

const KINDS: [AutomationKind; 2] = [AutomationKind::Task, AutomationKind::Service];

/// Routes below `/api/v1`.
pub(crate) fn public(state: &State) -> Router {
    let of_the_file = only_declared(of_the_file().split_for_parts()).with_state(state.clone());
    KINDS.into_iter().fold(of_the_file, |router, kind| {
        let alike = only_declared(alike(kind).split_for_parts());
        router.merge(alike.with_state(OfKind { state: state.clone(), kind }))
    })
}

/// What the public routes look like.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    KINDS
        .into_iter()
        .fold(of_the_file().into_openapi(), |document, kind| document.merge_from(alike(kind).into_openapi()))
}
