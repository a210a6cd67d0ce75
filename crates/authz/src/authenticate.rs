//! From a request to a principal.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::OptionalFromRequestParts;
use berth_api_types::internal::{Authorize, WorkspaceAction};
use berth_http::{PeerCredentials, Problem};
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use serde::{Deserialize, Serialize};

use crate::Principal;

/// The credentials that a client presented; the body of api's `POST /internal/authenticate`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presented {
    /// The `Authorization` header, whole.
    #[serde(default)]
    pub authorization: Option<String>,
    /// The `Cookie` header, whole.
    #[serde(default)]
    pub cookie: Option<String>,
    /// User at the other end of the unix socket, as the kernel says.
    #[serde(default)]
    pub peer_uid: Option<u32>,
    /// The `Origin` header.
    #[serde(default)]
    pub origin: Option<String>,
    /// The `Sec-Fetch-Site` header.
    #[serde(default)]
    pub fetch_site: Option<String>,
    /// The request changes something or opens a socket: with a cookie it must come from our own pages.
    #[serde(default)]
    pub unsafe_request: bool,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("authorization", &self.authorization.is_some())
            .field("cookie", &self.cookie.is_some())
            .field("peer_uid", &self.peer_uid)
            .field("origin", &self.origin)
            .field("fetch_site", &self.fetch_site)
            .field("unsafe_request", &self.unsafe_request)
            .finish()
    }
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request("duplicate_header", format!("the header {name} was sent more than once")));
    }
    let text = value.to_str().map_err(|_| {
        Problem::bad_request("invalid_header", format!("the header {name} holds characters that are not ASCII"))
    })?;
    Ok(Some(text.to_owned()))
}

impl Presented {
    /// Reads a request's head.
    ///
    /// # Errors
    /// A header was sent twice or is not text: which one counts would be a guess.
    pub fn from_parts(parts: &Parts) -> Result<Self, Problem> {
        let headers = &parts.headers;
        Ok(Self {
            authorization: single(headers, &header::AUTHORIZATION)?,
            cookie: cookies(headers)?,
            peer_uid: parts.extensions.get::<PeerCredentials>().map(|peer| peer.uid),
            origin: single(headers, &header::ORIGIN)?,
            fetch_site: single(headers, &HeaderName::from_static("sec-fetch-site"))?,
            unsafe_request: !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
                || headers.contains_key(header::UPGRADE),
        })
    }

    /// The body of api's `POST /internal/authorize`: may whoever presented these credentials do that to the workspace?
    #[must_use]
    pub fn may(&self, action: WorkspaceAction, workspace: &str) -> Authorize {
        Authorize {
            authorization: self.authorization.clone(),
            cookie: self.cookie.clone(),
            origin: self.origin.clone(),
            fetch_site: self.fetch_site.clone(),
            unsafe_request: self.unsafe_request,
            // The socket's mode lets only its owner in; only root is an administrator by that alone.
            local_admin: self.peer_uid == Some(0),
            workspace: workspace.to_owned(),
            action,
            uncounted: false,
            act: None,
        }
    }

    /// The client showed nothing at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.authorization.is_none() && self.cookie.is_none() && self.peer_uid.is_none()
    }
}

/// HTTP/2 clients may split `Cookie` into several fields (RFC 9113 §8.2.3); they are joined again.
fn cookies(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut joined = String::new();
    for value in headers.get_all(header::COOKIE) {
        let text = value.to_str().map_err(|_| {
            Problem::bad_request("invalid_header", "the header cookie holds characters that are not ASCII")
        })?;
        if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(text);
    }
    Ok((!joined.is_empty()).then_some(joined))
}

/// Turns presented credentials into a principal.
pub trait Authenticator: Send + Sync {
    /// Who this is.
    ///
    /// The problem is 401 when nothing, or nothing valid, was shown, 403 when a cookie came from a foreign page, and 503 when the
    /// check could not be made: never a principal in doubt.
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Arc<Principal>, Problem>>;
}

/// A principal that an outer layer has already found for this request.
#[derive(Clone, Debug)]
pub struct PrincipalExtension(pub Arc<Principal>);

/// The handler requires authentication. Needs an `Extension<Arc<dyn Authenticator>>` on the router.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if let Some(found) = parts.extensions.get::<PrincipalExtension>() {
            return Ok(Self(Arc::clone(&found.0)));
        }
        let authenticator = parts
            .extensions
            .get::<Arc<dyn Authenticator>>()
            .cloned()
            .ok_or_else(|| Problem::internal("the router has no authenticator extension"))?;
        let presented = Presented::from_parts(parts)?;
        let principal = authenticator.authenticate(&presented).await?;
        parts.extensions.insert(PrincipalExtension(Arc::clone(&principal)));
        Ok(Self(principal))
    }
}

/// `None` if no credentials were presented; invalid ones are still refused.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        let nothing =
            parts.extensions.get::<PrincipalExtension>().is_none() && Presented::from_parts(parts)?.is_empty();
        if nothing {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}
