//! Tests against the running server.

mod controller;
mod conventions;
mod support;
