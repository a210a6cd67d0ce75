//! Typed identifiers: one type per noun, each a `UUIDv7` (RFC 9562), so that they sort by their creation time.

use berth_clock::{Clock, Entropy};

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a valid {noun} id: expected a UUID such as 019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77")]
pub struct ParseIdError {
    /// What the identifier was to name.
    pub noun: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
}

/// Makes a `UUIDv7` from the clock's milliseconds and 74 random bits.
#[must_use]
pub fn uuid_v7(clock: &dyn Clock, entropy: &dyn Entropy) -> uuid::Uuid {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(clock.now().timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, sqlx::Type,
            schemars::JsonSchema, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        #[schemars(with = "String")]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A new identifier.
            #[must_use]
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                Self(uuid_v7(clock, entropy))
            }

            /// The identifier of a known UUID.
            #[must_use]
            pub const fn from_uuid(uuid: uuid::Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> uuid::Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                uuid::Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| ParseIdError { noun: $noun, text: text.chars().take(64).collect() })
            }
        }
    };
}

define_id!(
    /// A person, or an account that acts for one.
    UserId, "user"
);
define_id!(
    /// An organization.
    OrganizationId, "organization"
);
define_id!(
    /// A repository in an organization, with its settings.
    ProjectId, "project"
);
define_id!(
    /// The durable thing a user owns.
    WorkspaceId, "workspace"
);
define_id!(
    /// One run of a workspace.
    InstanceId, "instance"
);
define_id!(
    /// A personal access token.
    TokenId, "token"
);
define_id!(
    /// A signed-in browser or command line.
    SessionId, "session"
);
define_id!(
    /// A row of the audit log.
    AuditId, "audit entry"
);
define_id!(
    /// One run of an automation task or service.
    ExecutionId, "execution"
);
define_id!(
    /// A billable interval of an instance.
    UsageRecordId, "usage record"
);
define_id!(
    /// A stored git credential.
    CredentialId, "credential"
);

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::{SystemClock, SystemEntropy};

    #[test]
    fn ids_sort_by_time_and_round_trip() {
        let first = WorkspaceId::new(&SystemClock, &SystemEntropy);
        assert_eq!(first.to_string().parse::<WorkspaceId>().unwrap(), first);
        assert_eq!(first.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn a_bad_id_names_the_noun() {
        let error = "x".parse::<InstanceId>().unwrap_err();
        assert!(error.to_string().contains("instance id"), "{error}");
    }
}
