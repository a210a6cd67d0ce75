//! GET of one object.

use axum::response::Response;
use http::StatusCode;

use super::Call;
use crate::error::ApiResult;

pub(super) fn object(call: &Call) -> ApiResult<Response> {
    call.object(StatusCode::OK, &*call.current()?)
}
