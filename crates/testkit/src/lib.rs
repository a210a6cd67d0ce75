//! What tests need of the real world: a Postgres database of their own, a git server, and short ways to call a router.

#![expect(clippy::panic, reason = "test code: what is missing fails the test with its reason")]

mod base_image;
mod database;
mod git;
mod http;
mod terminal;

pub use base_image::base_image;
pub use database::{TestDatabase, database, database_with};
pub use git::{GitServer, Repository};
pub use http::{Answer, call, request};
pub use terminal::OnTerminal;
