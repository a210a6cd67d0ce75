//! Organizations and their members.

use berth_api_types::public::{Member, Organization, OrganizationRole};
use berth_authz::{Authorized, Principal};
use berth_ids::{OrganizationId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::domain::authorize::{
    LeaveOrganization, ManageMembers, OrganizationScope, ReadOrganization, UpdateOrganization,
};

/// The name of a role, as the database writes it.
#[must_use]
pub(crate) const fn role_name(role: OrganizationRole) -> &'static str {
    match role {
        OrganizationRole::Owner => "owner",
        OrganizationRole::Member => "member",
    }
}

fn role(text: &str, id: impl ToString) -> Result<OrganizationRole, StoreError> {
    match text {
        "owner" => Ok(OrganizationRole::Owner),
        "member" => Ok(OrganizationRole::Member),
        _ => Err(StoreError::Corrupt {
            table: "api.members",
            column: "role",
            id: id.to_string(),
            value: text.to_owned(),
        }),
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: OrganizationId,
    name: String,
    personal_of: Option<UserId>,
    revision: i64,
    created_at: DateTime<Utc>,
}

/// Makes an organization; `owner` is its first.
///
/// # Errors
/// The database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    id: OrganizationId,
    name: &str,
    owner: UserId,
    now: DateTime<Utc>,
) -> Result<Organization, StoreError> {
    sqlx::query(
        "WITH organization AS (
             INSERT INTO api.organizations (id, name, created_at, updated_at) VALUES ($1, $2, $4, $4) RETURNING id
         )
         INSERT INTO api.members (organization_id, user_id, role, created_at) SELECT id, $3, 'owner', $4 FROM organization",
    )
    .bind(id)
    .bind(name)
    .bind(owner)
    .bind(now)
    .execute(conn)
    .await?;
    let name = name.to_owned();
    Ok(Organization { id, name, personal: false, role: Some(OrganizationRole::Owner), created_at: now })
}

/// The facts that rights on it are decided from.
///
/// # Errors
/// The database.
pub(crate) async fn scope(
    conn: &mut PgConnection,
    id: OrganizationId,
) -> Result<Option<OrganizationScope>, StoreError> {
    let row: Option<(OrganizationId, Option<UserId>)> =
        sqlx::query_as("SELECT id, personal_of FROM api.organizations WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|(id, personal_of)| OrganizationScope { id, personal_of }))
}

/// It, with its revision.
///
/// # Errors
/// The database.
pub(crate) async fn get(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, ReadOrganization>,
) -> Result<Option<(Organization, i64)>, StoreError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT id, name, personal_of, revision, created_at FROM api.organizations WHERE id = $1")
            .bind(right.id)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|row| public(row, right.principal())))
}

fn public(row: Row, principal: &Principal) -> (Organization, i64) {
    let role = principal.role_in(row.id);
    let personal = row.personal_of.is_some();
    (Organization { id: row.id, name: row.name, personal, role, created_at: row.created_at }, row.revision)
}

type ListRow = (OrganizationId, String, Option<UserId>, DateTime<Utc>, String);

/// The organizations of a user, by id, after `after`.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn list(
    conn: &mut PgConnection,
    user: UserId,
    after: Option<OrganizationId>,
    limit: i64,
) -> Result<Vec<Organization>, StoreError> {
    let rows: Vec<ListRow> = sqlx::query_as(
        "SELECT o.id, o.name, o.personal_of, o.created_at, m.role FROM api.members m JOIN api.organizations o ON o.id = m.organization_id
         WHERE m.user_id = $1 AND ($2::uuid IS NULL OR o.id > $2) ORDER BY o.id LIMIT $3",
    )
    .bind(user)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(id, name, personal_of, created_at, text)| {
            let role = Some(role(&text, id)?);
            Ok(Organization { id, name, personal: personal_of.is_some(), role, created_at })
        })
        .collect()
}

/// Changes it; `None`: its revision is none of `expected`.
///
/// # Errors
/// The database.
pub(crate) async fn update(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, UpdateOrganization>,
    name: Option<&str>,
    expected: Option<&[i64]>,
    now: DateTime<Utc>,
) -> Result<Option<(Organization, i64)>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "UPDATE api.organizations SET name = coalesce($2, name), revision = revision + 1, updated_at = $4
         WHERE id = $1 AND ($3::bigint[] IS NULL OR revision = ANY($3))
         RETURNING id, name, personal_of, revision, created_at",
    )
    .bind(right.id)
    .bind(name)
    .bind(expected)
    .bind(now)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| public(row, right.principal())))
}

type MemberRow = (UserId, String, String, String, DateTime<Utc>);

fn member((user_id, name, email, text, created_at): MemberRow) -> Result<Member, StoreError> {
    Ok(Member { user_id, name, email, role: role(&text, user_id)?, created_at })
}

/// Its members, by user id, after `after`.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn members(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, ReadOrganization>,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<Member>, StoreError> {
    let rows: Vec<MemberRow> = sqlx::query_as(
        "SELECT u.id, u.name, u.email, m.role, m.created_at FROM api.members m JOIN api.users u ON u.id = m.user_id
         WHERE m.organization_id = $1 AND ($2::uuid IS NULL OR u.id > $2) ORDER BY u.id LIMIT $3",
    )
    .bind(right.id)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(member).collect()
}

/// Adds the account with this address; `None`: there is no such account.
///
/// # Errors
/// [`super::Conflict::Member`], the database, or a corrupt row.
pub(crate) async fn add_member(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, ManageMembers>,
    email: &str,
    role: OrganizationRole,
    now: DateTime<Utc>,
) -> Result<Option<Member>, StoreError> {
    let row: Option<MemberRow> = sqlx::query_as(
        "WITH account AS (SELECT id, name, email FROM api.users WHERE lower(email) = lower($2) AND NOT local),
         added AS (
             INSERT INTO api.members (organization_id, user_id, role, created_at) SELECT $1, id, $3, $4 FROM account
             RETURNING user_id, role, created_at
         )
         SELECT account.id, account.name, account.email, added.role, added.created_at
         FROM account JOIN added ON added.user_id = account.id",
    )
    .bind(right.id)
    .bind(email)
    .bind(role_name(role))
    .bind(now)
    .fetch_optional(conn)
    .await?;
    row.map(member).transpose()
}

/// How a change of a member ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// Done.
    Done(Member),
    /// They are no member.
    Absent,
    /// The organization would be left without an owner.
    LastOwner,
}

/// Locks the organization, so that of two owners who leave at the same moment one sees the other gone; then the member's row.
async fn lock_member(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
) -> Result<Option<(Member, bool)>, StoreError> {
    sqlx::query("SELECT 1 FROM api.organizations WHERE id = $1 FOR UPDATE")
        .bind(organization)
        .execute(&mut *conn)
        .await?;
    let row: Option<MemberRow> = sqlx::query_as(
        "SELECT u.id, u.name, u.email, m.role, m.created_at FROM api.members m JOIN api.users u ON u.id = m.user_id
         WHERE m.organization_id = $1 AND m.user_id = $2",
    )
    .bind(organization)
    .bind(user)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(found) = row.map(member).transpose()? else { return Ok(None) };
    let others: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM api.members WHERE organization_id = $1 AND role = 'owner' AND user_id <> $2)",
    )
    .bind(organization)
    .bind(user)
    .fetch_one(conn)
    .await?;
    let last = found.role == OrganizationRole::Owner && !others;
    Ok(Some((found, last)))
}

/// Gives a member another role, in the caller's transaction.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn set_role(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, ManageMembers>,
    user: UserId,
    role: OrganizationRole,
) -> Result<MemberChange, StoreError> {
    let Some((mut member, last)) = lock_member(conn, right.id, user).await? else { return Ok(MemberChange::Absent) };
    if last && role != OrganizationRole::Owner {
        return Ok(MemberChange::LastOwner);
    }
    sqlx::query("UPDATE api.members SET role = $3 WHERE organization_id = $1 AND user_id = $2")
        .bind(right.id)
        .bind(user)
        .bind(role_name(role))
        .execute(conn)
        .await?;
    member.role = role;
    Ok(MemberChange::Done(member))
}

/// The right to remove a member: an owner's, or the member's own.
#[derive(Debug)]
pub(crate) enum Removal {
    /// An owner or administrator removes a member.
    Other(Authorized<OrganizationScope, ManageMembers>),
    /// A member leaves.
    Self_(Authorized<OrganizationScope, LeaveOrganization>),
}

/// Removes a member, in the caller's transaction.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn remove_member(
    conn: &mut PgConnection,
    right: &Removal,
    user: UserId,
) -> Result<MemberChange, StoreError> {
    let (organization, user) = match right {
        Removal::Other(right) => (right.id, user),
        Removal::Self_(right) => (right.id, right.principal().user_id),
    };
    let Some((member, last)) = lock_member(conn, organization, user).await? else { return Ok(MemberChange::Absent) };
    if last {
        return Ok(MemberChange::LastOwner);
    }
    sqlx::query("DELETE FROM api.members WHERE organization_id = $1 AND user_id = $2")
        .bind(organization)
        .bind(user)
        .execute(conn)
        .await?;
    Ok(MemberChange::Done(member))
}
