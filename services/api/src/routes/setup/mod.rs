//! The first administrator.

pub(super) mod create;
pub(super) mod show;
