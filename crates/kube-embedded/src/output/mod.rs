//! The forms in which objects leave the server.

pub(crate) mod cells;
pub(crate) mod jsonpath;
pub(crate) mod negotiate;
pub(crate) mod table;
