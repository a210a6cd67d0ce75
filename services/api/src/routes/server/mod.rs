//! The server itself.

pub(super) mod show;
