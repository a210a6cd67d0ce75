//! berth-ws-manager
