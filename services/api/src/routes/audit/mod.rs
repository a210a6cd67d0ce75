//! The audit log.

pub(super) mod list;
