//! berth-scm
