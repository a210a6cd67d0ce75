//! berth-config
