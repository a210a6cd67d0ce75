//! Git credentials of the public API.

use berth_ids::CredentialId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A git credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitCredential {
    /// Its id.
    pub id: CredentialId,
    /// Host in lower case, with the port if it is not the default.
    pub host: String,
    /// User name for basic authentication.
    pub username: String,
    /// When it was first stored.
    pub created_at: DateTime<Utc>,
    /// When its secret was last replaced.
    pub updated_at: DateTime<Utc>,
    /// When a workspace or a lookup of refs last used it, to the hour.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// `POST /api/v1/git-credentials`. A credential for the same host is replaced.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGitCredential {
    /// `host` or `host:port`.
    #[schema(min_length = 1)]
    pub host: String,
    /// User name; `git` when absent, which hosts accept together with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub username: Option<String>,
    /// Password or token.
    #[schema(min_length = 1)]
    pub password: String,
}

impl std::fmt::Debug for CreateGitCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateGitCredential")
            .field("host", &self.host)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
