//! The `berth` program as a user has it: real server, real Postgres, real workspaces, git over http. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "test code: it fails loudly and tells why it skips"
)]

mod bad_days;
mod bad_input;
mod commands;
mod full_disk;
mod git_flows;
mod kills;
mod machine;
mod make_run;
mod offline;
mod server;
#[path = "../../../runtime/hull/tests/it/shells.rs"]
mod shells;
mod support;
