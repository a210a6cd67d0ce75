//! Personal access tokens, and the lookup of presented credentials.

use berth_api_types::public::{OrganizationRole, Token};
use berth_authz::{Credential, Membership, Principal};
use berth_ids::{OrganizationId, SessionId, TokenId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::StoreError;
use crate::domain::secret::SecretHash;

/// Keeps a new token.
///
/// # Errors
/// The database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    user: UserId,
    token: &Token,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api.tokens (id, user_id, name, prefix, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(token.id)
    .bind(user)
    .bind(&token.name)
    .bind(&token.prefix)
    .bind(hash.as_slice())
    .bind(token.created_at)
    .bind(token.expires_at)
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    id: TokenId,
    name: String,
    prefix: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

/// The user's tokens that were not revoked, the newest first, older than `before`.
///
/// # Errors
/// The database.
pub(crate) async fn list(
    conn: &mut PgConnection,
    user: UserId,
    before: Option<TokenId>,
    limit: i64,
) -> Result<Vec<Token>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, prefix, created_at, expires_at, last_used_at FROM api.tokens
         WHERE user_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(user)
    .bind(before)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let token = |row: Row| Token {
        id: row.id,
        name: row.name,
        prefix: row.prefix,
        created_at: row.created_at,
        expires_at: Some(row.expires_at),
        last_used_at: row.last_used_at,
    };
    Ok(rows.into_iter().map(token).collect())
}

/// Revokes a token of the user; returns its name, or `None` if they have no such token.
///
/// # Errors
/// The database.
pub(crate) async fn revoke(
    conn: &mut PgConnection,
    user: UserId,
    id: TokenId,
    now: DateTime<Utc>,
) -> Result<Option<String>, StoreError> {
    let name = sqlx::query_scalar(
        "UPDATE api.tokens SET revoked_at = $3 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING name",
    )
    .bind(id)
    .bind(user)
    .bind(now)
    .fetch_optional(conn)
    .await?;
    Ok(name)
}

/// Records that it was used, at most once since `unless_since`.
///
/// # Errors
/// The database.
pub(crate) async fn touch(
    conn: &mut PgConnection,
    id: TokenId,
    now: DateTime<Utc>,
    unless_since: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE api.tokens SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)",
    )
    .bind(id)
    .bind(now)
    .bind(unless_since)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a presented secret stands for, before its expiry is checked.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// Who.
    pub principal: Principal,
    /// When the credential ends.
    pub expires_at: DateTime<Utc>,
    /// When it was last used: for a session it decides whether it was idle for too long.
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct HolderRow {
    credential_id: uuid::Uuid,
    expires_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    user_id: UserId,
    name: String,
    email: String,
    admin: bool,
    organizations: Json<Vec<(OrganizationId, OrganizationRole, bool)>>,
}

impl HolderRow {
    fn holder(self, credential: Credential) -> Holder {
        let membership = |(id, role, personal)| Membership { id, role, personal };
        Holder {
            principal: Principal {
                user_id: self.user_id,
                name: self.name,
                email: self.email,
                admin: self.admin,
                organizations: self.organizations.0.into_iter().map(membership).collect(),
                credential,
            },
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
        }
    }
}

macro_rules! holder_query {
    ($credential:literal, $from:literal) => {
        concat!(
            "SELECT ",
            $credential,
            ", u.id AS user_id, u.name, u.email, u.admin,
               coalesce((SELECT jsonb_agg(jsonb_build_array(m.organization_id, m.role, o.personal_of IS NOT NULL))
                    FROM api.members m JOIN api.organizations o ON o.id = m.organization_id WHERE m.user_id = u.id), '[]') AS organizations ",
            $from
        )
    };
}

/// Who holds the token with this hash.
///
/// # Errors
/// The database.
pub(crate) async fn holder_of_token(conn: &mut PgConnection, hash: &SecretHash) -> Result<Option<Holder>, StoreError> {
    let row: Option<HolderRow> = sqlx::query_as(holder_query!(
        "t.id AS credential_id, t.expires_at, t.last_used_at",
        "FROM api.tokens t JOIN api.users u ON u.id = t.user_id WHERE t.hash = $1 AND t.revoked_at IS NULL"
    ))
    .bind(hash.as_slice())
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let id = TokenId::from_uuid(row.credential_id);
        row.holder(Credential::Token { id })
    }))
}

/// Who holds the session with this hash.
///
/// # Errors
/// The database.
pub(crate) async fn holder_of_session(
    conn: &mut PgConnection,
    hash: &SecretHash,
) -> Result<Option<Holder>, StoreError> {
    let row: Option<HolderRow> = sqlx::query_as(holder_query!(
        "s.id AS credential_id, s.expires_at, s.last_seen_at AS last_used_at",
        "FROM api.sessions s JOIN api.users u ON u.id = s.user_id WHERE s.hash = $1"
    ))
    .bind(hash.as_slice())
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let id = SessionId::from_uuid(row.credential_id);
        row.holder(Credential::Session { id })
    }))
}

/// The unix socket's administrator as a principal.
///
/// # Errors
/// The database.
pub(crate) async fn holder_of_socket(conn: &mut PgConnection) -> Result<Option<Holder>, StoreError> {
    let row: Option<HolderRow> = sqlx::query_as(holder_query!(
        "u.id AS credential_id, '9999-01-01Z'::timestamptz AS expires_at, NULL::timestamptz AS last_used_at",
        "FROM api.users u WHERE u.local"
    ))
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.holder(Credential::Local)))
}
