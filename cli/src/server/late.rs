//! Breaks the cycle between api, which needs scm, and scm, which needs api's accounts: scm gets an empty place, and api is put there once it
//! is built.

use std::sync::{Arc, OnceLock};

use berth_authz::{Authenticator, Presented, Principal};
use berth_http::Problem;
use futures::future::BoxFuture;

/// An authenticator that is supplied later; until then everybody is refused.
#[derive(Clone, Default)]
pub(crate) struct LateAuthenticator(Arc<OnceLock<Arc<dyn Authenticator>>>);

impl LateAuthenticator {
    /// Supplies the real one. Only the first call counts.
    pub(crate) fn set(&self, authenticator: Arc<dyn Authenticator>) {
        // A second call would be a mistake in `assemble`, and harmless.
        let _ = self.0.set(authenticator);
    }
}

impl Authenticator for LateAuthenticator {
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Arc<Principal>, Problem>> {
        match self.0.get() {
            Some(authenticator) => authenticator.authenticate(presented),
            None => Box::pin(async { Err(Problem::unavailable("the server is still starting")) }),
        }
    }
}
