//! hull-conformance
fn main() {}
