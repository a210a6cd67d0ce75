//! Authentication for services that keep no accounts: they ask api.

use std::sync::Arc;

use berth_http::{InternalClient, Problem};
use futures::future::BoxFuture;

use crate::{Authenticator, Presented, Principal};

/// Asks api's `POST /internal/authenticate`; in one process that is a call in memory.
#[derive(Clone)]
pub struct RemoteAuthenticator {
    api: InternalClient,
}

impl RemoteAuthenticator {
    /// Asks through this client.
    #[must_use]
    pub const fn new(api: InternalClient) -> Self {
        Self { api }
    }
}

impl Authenticator for RemoteAuthenticator {
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Arc<Principal>, Problem>> {
        Box::pin(async move {
            let principal: Principal =
                self.api.post("/internal/authenticate", presented).await.map_err(Problem::from)?;
            Ok(Arc::new(principal))
        })
    }
}
