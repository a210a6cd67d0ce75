//! The kinds of patch.

pub(crate) mod json;
pub(crate) mod merge;
pub(crate) mod strategic;
