//! Where a request comes from, for the audit log and for limits on those who have not signed in.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use berth_http::PeerCredentials;

/// Longest user agent that is kept.
const MAX_USER_AGENT_CHARS: usize = 200;

/// The other end of the connection. Forwarding headers are not trusted: which proxy may set them is a matter of configuration, not of the
/// client's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Network address without port; `unix` for the server's socket; empty for a call within the process.
    pub address: String,
    /// What the program calls itself, cut.
    pub user_agent: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::from_parts(parts))
    }
}

impl Caller {
    /// Reads it from a request's head and its connection.
    #[must_use]
    pub(crate) fn from_parts(parts: &Parts) -> Self {
        let extensions = &parts.extensions;
        let address = match (extensions.get::<PeerCredentials>(), extensions.get::<ConnectInfo<SocketAddr>>()) {
            (Some(_), _) => "unix".to_owned(),
            (None, Some(ConnectInfo(address))) => address.ip().to_canonical().to_string(),
            (None, None) => String::new(),
        };
        let user_agent =
            parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self { address, user_agent: user_agent.chars().take(MAX_USER_AGENT_CHARS).collect() }
    }
}
