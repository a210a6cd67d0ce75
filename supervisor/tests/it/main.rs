//! The real program, as process 1 of a pid namespace, and its host roles, as root. Tests that need what is not there say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say why they skip"
)]

mod credentials;
mod exec;
mod files;
mod harness;
mod hostile;
mod lifecycle;
mod monitor;
mod ports;
mod rootfs;
mod terminal;
mod tunnel;
mod units;
