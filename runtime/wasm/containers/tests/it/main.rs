//! WebAssembly programs in real containers, made by the `hull` program.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: what goes wrong in them is a failure")]

mod cache;
mod handler;
mod limits;
mod programs;
