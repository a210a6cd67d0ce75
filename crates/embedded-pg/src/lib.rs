//! berth-embedded-pg
