//! The services as processes of their own, and as containers: a user opens a workspace through them.

#![cfg(test)]
#![expect(clippy::print_stderr, reason = "tests say why they were skipped, and what the services logged")]

mod compose;
mod processes;
mod support;
