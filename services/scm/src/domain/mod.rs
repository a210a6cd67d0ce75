//! Pure rules: no axum, no SQL.

pub mod context;
pub mod resolve;
