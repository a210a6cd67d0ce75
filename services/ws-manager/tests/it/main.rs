//! ws-manager as a whole: the controller and its internal API against the embedded Kubernetes API server, with a node that keeps its
//! contract with the controller and does nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "helpers of tests, and figures"
)]

mod api;
mod definitions;
mod events;
mod figures;
mod gate;
mod kill;
mod leader;
mod lifecycle;
mod node;
mod world;
