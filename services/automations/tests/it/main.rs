//! The service on a real Postgres, with a supervisor that speaks the real protocol and runs real commands.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say why they skip"
)]

mod berth_init;
mod crash;
mod runs;
mod supervisor;
mod support;
