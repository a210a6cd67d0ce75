//! Making, changing and deleting workspaces.

use berth_api_types::internal::ResolveContextReply;
use berth_authz::Authorized;
use berth_ids::WorkspaceId;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::domain::authorize::{DeleteWorkspace, OrganizationScope, SpendInOrganization, UpdateWorkspace};
use crate::domain::workspace::Workspace;
use crate::store::StoreError;
use crate::store::audit::{Entry, audited};

/// Makes a workspace without a run, with its audit row and the note for a repeated request; false: its owner has another of this name, and
/// nothing was written.
///
/// # Errors
/// The database.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, SpendInOrganization>,
    workspace: &Workspace,
    reply: &ResolveContextReply,
    held: Option<&str>,
    entry: Entry<'_>,
) -> Result<bool, StoreError> {
    let query = sqlx::query(audited!(
        "INSERT INTO api.workspaces (id, name, owner_id, organization_id, context_url, context, allow_private_hosts, repository,
             repository_key, reference, commit_id, checkout_path, class, image, inactivity_seconds, created_at, updated_at)
         VALUES ($14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $29)
         ON CONFLICT (owner_id, name) WHERE deleted_at IS NULL DO NOTHING RETURNING id",
        ", held AS (UPDATE api.idempotency SET resource_id = changed.id FROM changed WHERE user_id = $16 AND key = $30)",
        "id"
    ));
    let inserted = entry
        .bind(query)
        .bind(workspace.id)
        .bind(&workspace.name)
        .bind(right.principal().user_id)
        .bind(right.id)
        .bind(&workspace.context_url)
        .bind(Json(&reply.resolved))
        .bind(&reply.allow_private_hosts)
        .bind(&workspace.repository)
        .bind(&workspace.repository_key)
        .bind(&workspace.reference)
        .bind(&workspace.commit)
        .bind(&workspace.checkout_path)
        .bind(&workspace.class)
        .bind(&workspace.image)
        .bind(workspace.inactivity_seconds.and_then(|seconds| i32::try_from(seconds).ok()))
        .bind(workspace.created_at)
        .bind(held)
        .fetch_optional(conn)
        .await?;
    Ok(inserted.is_some())
}

/// Changes its settings, with its audit row; returns the new revision, or `None` if the old one was none of `expected`.
///
/// # Errors
/// [`Conflict::WorkspaceName`](crate::store::Conflict::WorkspaceName), or the database.
pub(crate) async fn update(
    conn: &mut PgConnection,
    right: &Authorized<Workspace, UpdateWorkspace>,
    change: &SettingsChange<'_>,
    entry: Entry<'_>,
) -> Result<Option<i64>, StoreError> {
    let query = sqlx::query(audited!(
        "UPDATE api.workspaces SET name = coalesce($15, name), inactivity_seconds = coalesce($16, inactivity_seconds),
             revision = revision + 1, updated_at = $18
         WHERE id = $14 AND deleting_at IS NULL AND ($17::bigint[] IS NULL OR revision = ANY($17))
         RETURNING revision",
        "",
        "revision"
    ));
    let row = entry
        .bind(query)
        .bind(right.id)
        .bind(change.name)
        .bind(change.inactivity_seconds.and_then(|seconds| i32::try_from(seconds).ok()))
        .bind(change.expected)
        .bind(change.now)
        .fetch_optional(conn)
        .await?;
    row.map(|row| sqlx::Row::try_get(&row, 0)).transpose().map_err(StoreError::from)
}

/// New settings of a workspace; absent fields stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SettingsChange<'a> {
    /// New name.
    pub name: Option<&'a str>,
    /// New inactivity timeout.
    pub inactivity_seconds: Option<u32>,
    /// Only if its revision is still one of these.
    pub expected: Option<&'a [i64]>,
    /// When.
    pub now: DateTime<Utc>,
}

/// Marks it for deletion; false: it was marked already, or its revision is none of `expected`.
///
/// # Errors
/// The database.
pub(crate) async fn mark_deleting(
    conn: &mut PgConnection,
    right: &Authorized<Workspace, DeleteWorkspace>,
    expected: Option<&[i64]>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let marked = sqlx::query(
        "UPDATE api.workspaces SET deleting_at = $2, updated_at = $2, revision = revision + 1
         WHERE id = $1 AND deleting_at IS NULL AND ($3::bigint[] IS NULL OR revision = ANY($3))",
    )
    .bind(right.id)
    .bind(now)
    .bind(expected)
    .execute(conn)
    .await?;
    Ok(marked.rows_affected() == 1)
}

/// The workspaces that are being deleted, the oldest first.
///
/// # Errors
/// The database.
pub(crate) async fn being_deleted(conn: &mut PgConnection) -> Result<Vec<WorkspaceId>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT id FROM api.workspaces WHERE deleting_at IS NOT NULL AND deleted_at IS NULL ORDER BY deleting_at LIMIT 200",
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Its disk is wiped: from now on nobody sees it. False: it was not being deleted, or still runs.
///
/// # Errors
/// The database.
pub(crate) async fn mark_deleted(
    conn: &mut PgConnection,
    id: WorkspaceId,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let marked = sqlx::query(
        "UPDATE api.workspaces SET deleted_at = $2, updated_at = $2 WHERE id = $1 AND deleting_at IS NOT NULL AND deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM api.instances WHERE workspace_id = $1 AND phase <> 'Stopped')",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(marked.rows_affected() == 1)
}
