//! The service on a real Postgres: events in, usage out.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod events;
mod support;
mod usage;
