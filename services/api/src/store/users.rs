//! Accounts.

use berth_api_types::public::User;
use berth_authz::Authorized;
use berth_ids::{OrganizationId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::authorize::{Installation, ListUsers};

/// An account, as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct UserRow {
    /// Its id.
    pub id: UserId,
    /// For people, and git's `user.name`.
    pub name: String,
    /// E-mail address of the account.
    pub email: String,
    /// Git's `user.email`.
    pub git_email: String,
    /// May do everything.
    pub admin: bool,
    /// Grows with each change.
    pub revision: i64,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self { id: row.id, name: row.name, email: row.email, git_email: row.git_email, admin: row.admin }
    }
}

/// A new account.
#[derive(Clone, Debug)]
pub(crate) struct NewUser<'a> {
    /// Its id.
    pub id: UserId,
    /// Its personal organization's id.
    pub organization_id: OrganizationId,
    /// For people.
    pub name: &'a str,
    /// Address, normalised.
    pub email: &'a str,
    /// May do everything.
    pub admin: bool,
    /// Root at the unix socket.
    pub local: bool,
    /// PHC string; `None`: cannot sign in with a password.
    pub password_hash: Option<&'a str>,
}

/// Makes an account with its personal organization.
///
/// # Errors
/// [`super::Conflict::Email`], or the database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    user: &NewUser<'_>,
    now: DateTime<Utc>,
) -> Result<UserRow, StoreError> {
    let row: UserRow = sqlx::query_as(
        "WITH account AS (
             INSERT INTO api.users (id, name, email, git_email, admin, local, created_at, updated_at)
             VALUES ($1, $2, $3, $3, $4, $5, $6, $6)
             RETURNING id, name, email, git_email, admin, revision
         ), home AS (
             INSERT INTO api.organizations (id, name, personal_of, created_at, updated_at)
             SELECT $7, $2, id, $6, $6 FROM account
             RETURNING id
         ), owner AS (
             INSERT INTO api.members (organization_id, user_id, role, created_at)
             SELECT home.id, account.id, 'owner', $6 FROM home, account
         ), password AS (
             INSERT INTO api.passwords (user_id, hash, updated_at)
             SELECT id, $8, $6 FROM account WHERE $8::text IS NOT NULL
         )
         SELECT id, name, email, git_email, admin, revision FROM account",
    )
    .bind(user.id)
    .bind(user.name)
    .bind(user.email)
    .bind(user.admin)
    .bind(user.local)
    .bind(now)
    .bind(user.organization_id)
    .bind(user.password_hash)
    .fetch_one(conn)
    .await?;
    Ok(row)
}

/// An account by its id.
///
/// # Errors
/// The database.
pub(crate) async fn find(conn: &mut PgConnection, id: UserId) -> Result<Option<UserRow>, StoreError> {
    let row = sqlx::query_as("SELECT id, name, email, git_email, admin, revision FROM api.users WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(row)
}

/// An account with its password, by its address. The unix socket's administrator has no password and is never found.
///
/// # Errors
/// The database.
pub(crate) async fn find_for_login(
    conn: &mut PgConnection,
    email: &str,
) -> Result<Option<(UserId, Option<String>)>, StoreError> {
    let row = sqlx::query_as(
        "SELECT u.id, p.hash FROM api.users u LEFT JOIN api.passwords p ON p.user_id = u.id
         WHERE lower(u.email) = lower($1) AND NOT u.local",
    )
    .bind(email)
    .fetch_optional(conn)
    .await?;
    Ok(row)
}

/// The password hash of an account, if it has one.
///
/// # Errors
/// The database.
pub(crate) async fn password_hash(conn: &mut PgConnection, id: UserId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT hash FROM api.passwords WHERE user_id = $1").bind(id).fetch_optional(conn).await?)
}

/// Sets the password of an account.
///
/// # Errors
/// The database.
pub(crate) async fn set_password(
    conn: &mut PgConnection,
    id: UserId,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api.passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET hash = EXCLUDED.hash, updated_at = EXCLUDED.updated_at",
    )
    .bind(id)
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes the profile; `None`: its revision is none of `expected`.
///
/// # Errors
/// The database.
pub(crate) async fn update(
    conn: &mut PgConnection,
    id: UserId,
    name: Option<&str>,
    git_email: Option<&str>,
    expected: Option<&[i64]>,
    now: DateTime<Utc>,
) -> Result<Option<UserRow>, StoreError> {
    let row = sqlx::query_as(
        "UPDATE api.users SET name = coalesce($2, name), git_email = coalesce($3, git_email), revision = revision + 1, updated_at = $5
         WHERE id = $1 AND ($4::bigint[] IS NULL OR revision = ANY($4))
         RETURNING id, name, email, git_email, admin, revision",
    )
    .bind(id)
    .bind(name)
    .bind(git_email)
    .bind(expected)
    .bind(now)
    .fetch_optional(conn)
    .await?;
    Ok(row)
}

/// Every account, by id, after `after`.
///
/// # Errors
/// The database.
pub(crate) async fn list(
    conn: &mut PgConnection,
    _right: &Authorized<Installation, ListUsers>,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<UserRow>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT id, name, email, git_email, admin, revision FROM api.users
         WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
