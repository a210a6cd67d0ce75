//! Pure rules: no axum, no SQL.

pub(crate) mod credits;
pub(crate) mod csv;
pub(crate) mod record;
