//! Pure rules: no axum, no SQL.

pub(crate) mod definition;
pub mod file;
pub mod plan;
pub(crate) mod progress;
