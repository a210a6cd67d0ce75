//! Pure rules: no axum, no SQL.

pub mod context;
