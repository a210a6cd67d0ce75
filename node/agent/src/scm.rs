//! Git credentials from the scm service.

use async_trait::async_trait;
use berth_api_types::internal::{GitCredentialReply, LookupGitCredential};
use berth_http::InternalClient;
use berth_supervisor_protocol::Secret;

use crate::{Credential, CredentialQuery, CredentialSource};

/// Asks scm's `POST /internal/git-credentials/lookup`.
#[derive(Debug, Clone)]
pub struct ScmCredentials(InternalClient);

impl ScmCredentials {
    /// Asks through this client.
    #[must_use]
    pub const fn new(scm: InternalClient) -> Self {
        Self(scm)
    }
}

#[async_trait]
impl CredentialSource for ScmCredentials {
    async fn lookup(&self, query: CredentialQuery) -> Result<Option<Credential>, String> {
        let lookup = LookupGitCredential {
            instance_id: query.instance_id.parse().map_err(|_| "the instance has no valid id".to_owned())?,
            user_id: query.owner_id.parse().map_err(|_| "the owner has no valid id".to_owned())?,
            host: query.host,
            repository_host: query.repository_host,
        };
        let reply: Option<GitCredentialReply> =
            self.0.post("/internal/git-credentials/lookup", &lookup).await.map_err(|error| error.to_string())?;
        Ok(reply.map(|reply| Credential { username: reply.username, password: Secret::new(reply.password) }))
    }
}
