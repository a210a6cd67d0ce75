//! Tests against the running server.

mod controller;
mod conventions;
mod durable;
mod support;
