//! HTTP as every service speaks it: problems (RFC 9457), extractors, the accept loop, calls between services, guarded calls to the outside.

pub mod client;
pub mod drain;
pub mod hosts;
pub mod outbound;
pub mod page;
pub mod problem;
pub mod proxy;
pub mod relay;
pub mod serve;
pub mod service_auth;
pub mod sse;
pub mod upgrade;

mod extract;
mod parameters;

pub use client::{CallError, InternalClient};
pub use extract::{Json, Path, Query, QueryWithEmpty};
pub use page::{PageQuery, Paging};
pub use parameters::only_declared;
pub use problem::{Problem, ProblemBody, ProblemResponse};
pub use relay::relay;
pub use serve::{Listener, PeerCredentials, ServeOptions, serve};
pub use upgrade::Upgraded;

/// Installs the process's TLS provider (ring). Call it first in every `main` and in test set-up; calling it again does nothing.
pub fn install_crypto() {
    // The only error is "already installed", which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
