//! berth-db
