//! Pure rules: no axum, no SQL.

pub mod file;
pub mod plan;
