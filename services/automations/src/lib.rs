//! berth-automations
