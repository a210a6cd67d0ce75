//! Tests of the api service: the real service on a real Postgres, with scm and ws-manager faked at their HTTP edge.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod audit;
mod authorization;
mod idempotency;
mod internal;
mod lifecycle;
mod openapi;
mod organizations;
mod pages;
mod sessions;
mod support;
mod sync;
mod tokens;
mod users;
mod watch;
mod workspaces;
