//! The service against real git servers on loopback, hosts that misbehave, and a real Postgres.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code: what is missing fails the test")]

mod credentials;
mod resolve;
mod support;
