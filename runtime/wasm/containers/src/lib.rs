//! WebAssembly programs in containers that the `hull` program makes: what the tests and the bench share.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "only tests and a bench use it: what goes wrong here is their failure"
)]

mod bundle;
pub mod guests;

pub use bundle::{Bundle, Output, finish, hull_wasm, ready};
