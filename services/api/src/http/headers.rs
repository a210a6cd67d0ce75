//! Request headers that several operations share, for the OpenAPI document. The code that reads them is elsewhere.

use utoipa::IntoParams;

/// Of requests that `layers::idempotency` answers once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive macro only")]
pub(crate) struct IdempotencyKey {
    /// The same key gets the same answer, once done. Secrets are not stored: whoever repeats a request that made one is told that it was done.
    #[param(value_type = String, required = false, rename = "Idempotency-Key", min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// Of changes that [`ETag::expected`](super::etag::ETag::expected) guards.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive macro only")]
pub(crate) struct IfMatch {
    /// ETags of what was read, or `*`. Refused with 412 when its settings were changed since.
    #[param(value_type = String, required = false, rename = "If-Match", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#)]
    if_match: Option<String>,
}

/// Of reads that [`ETag::known`](super::etag::ETag::known) may spare.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive macro only")]
pub(crate) struct IfNoneMatch {
    /// ETags that are known, or `*`. Answered with 304 when it is still one of them.
    #[param(value_type = String, required = false, rename = "If-None-Match")]
    if_none_match: Option<String>,
}
