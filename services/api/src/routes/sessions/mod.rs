//! Signing in and out.

pub(in crate::routes) mod begin;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod list;
