//! berth-init
fn main() {}
