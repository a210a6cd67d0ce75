//! What every authenticated request passes: authentication and rate limits ([`principal`]), and the answer of an earlier try
//! ([`idempotency`]).

pub(crate) mod idempotency;
pub(crate) mod limits;
pub(crate) mod principal;

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::state::Api;

/// Puts the layers around routes that need credentials.
pub(crate) fn protect(api: &Api, router: Router) -> Router {
    router
        .layer(from_fn_with_state(api.clone(), idempotency::layer))
        .layer(from_fn_with_state(api.clone(), principal::layer))
}
