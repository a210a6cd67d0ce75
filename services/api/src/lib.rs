//! The api service: accounts, organizations, tokens, workspaces, the audit log, and the public REST API over them.
//!
//! A request passes through `layers` (authentication, rate limits, idempotency), a handler in `routes`, the rules in `domain` and the SQL in
//! `store`. What takes longer than a request (start, stop, delete) is in `lifecycle`; when a process dies midway, `jobs` complete it.

pub mod others;

mod authenticate;
mod changes;
mod config;
mod domain;
mod http;
mod jobs;
mod layers;
mod lifecycle;
mod lists;
mod openapi;
mod pages;
mod routes;
mod stamps;
mod state;
mod store;
mod views;

pub use config::{Config, InvalidConfig};
pub use openapi::document as openapi;
pub use state::{Api, SetupLinkError};
pub use utoipa::openapi::OpenApi;
