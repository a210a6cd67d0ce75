//! Tests against the running server.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

mod conformance;
mod controller;
mod conventions;
mod durable;
mod kubectl;
mod reactions;
mod support;
