//! berth-billing
