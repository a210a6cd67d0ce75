//! Workspace classes.

pub(super) mod list;
