//! berth-authz
