//! Tests against the running server.

mod conformance;
mod controller;
mod conventions;
mod durable;
mod kubectl;
mod support;
