//! The one who asks.

use berth_api_types::public::OrganizationRole;
use berth_ids::{OrganizationId, SessionId, TokenId, UserId};
use serde::{Deserialize, Serialize};

/// A place in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The organization.
    pub id: OrganizationId,
    /// What they may do there.
    pub role: OrganizationRole,
    /// It is their personal one, which pays when no other is named.
    #[serde(default)]
    pub personal: bool,
}

/// How they proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Credential {
    /// A personal access token.
    Token {
        /// Which one.
        id: TokenId,
    },
    /// A browser's session cookie.
    Session {
        /// Which one.
        id: SessionId,
    },
    /// Root at the server's unix socket, by peer credentials.
    Local,
}

/// As it stands in the audit log: `token:<id>`, `session:<id>`, `local`.
impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token { id } => write!(f, "token:{id}"),
            Self::Session { id } => write!(f, "session:{id}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Somebody whose credentials were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Who.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// Address of the account.
    pub email: String,
    /// May do everything in the installation.
    pub admin: bool,
    /// Where they are a member.
    pub organizations: Vec<Membership>,
    /// What they showed.
    pub credential: Credential,
}

impl Principal {
    /// Their role in an organization; `None`: not a member.
    #[must_use]
    pub fn role_in(&self, organization: OrganizationId) -> Option<OrganizationRole> {
        self.organizations.iter().find(|membership| membership.id == organization).map(|membership| membership.role)
    }

    /// They own the organization.
    #[must_use]
    pub fn owns(&self, organization: OrganizationId) -> bool {
        self.role_in(organization) == Some(OrganizationRole::Owner)
    }
}
