//! The runtime as others use it: the program and the library, on real containers.
//!
//! Needs root, cgroups and a static busybox; without them each test says what is missing and passes.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests: a failure is a panic, a skipped test says why")]

mod api;
mod bundle;
mod criu;
mod errors;
mod filters;
mod flags;
mod library;
mod peers;
mod program;
mod records;
mod shells;
mod suites;
mod symlinks;
