//! The node on the real machine: kernel, hull, git over http. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "test code: it fails loudly and tells why it skips"
)]

mod content;
mod crash;
mod images;
mod kept;
mod moments;
mod network;
mod pods;
mod registry;
mod repositories;
mod support;
mod whole_path;
