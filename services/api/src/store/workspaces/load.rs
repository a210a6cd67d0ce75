//! One workspace for somebody who wants to do something to it, or several for those who watch them.

use std::sync::Arc;

use berth_authz::{Authorized, Denied, Principal};
use berth_ids::WorkspaceId;
use sqlx::PgConnection;

use super::row::Row;
use crate::domain::authorize::WorkspaceAct;
use crate::domain::workspace::Workspace;
use crate::store::StoreError;

/// Why a workspace was not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is none, or the caller may not know of it, or may not do this to it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The caller may not do this, but may see the workspace: this goes into the audit log.
    #[error("{denied}")]
    Refused {
        /// What they are told.
        denied: Denied,
        /// Which one it was.
        workspace: Box<Workspace>,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The workspace with this id or name, if the principal may do `A` to it. A name is looked for among their own; for an administrator also
/// among everybody's, if only one has it.
///
/// # Errors
/// See [`LoadError`].
pub(crate) async fn load<A>(
    conn: &mut PgConnection,
    principal: &Arc<Principal>,
    reference: &str,
) -> Result<Authorized<Workspace, A>, LoadError>
where
    A: WorkspaceAct,
{
    let found = match reference.parse::<WorkspaceId>() {
        Ok(id) => find(conn, id).await?,
        Err(_) => find_by_name(conn, principal, reference).await?,
    };
    let Some(workspace) = found else { return Err(Denied::Hidden { noun: "workspace" }.into()) };
    match Authorized::<Workspace, A>::check(principal, workspace.clone()) {
        Ok(right) => Ok(right),
        Err(denied @ Denied::Forbidden { .. }) => Err(LoadError::Refused { denied, workspace: Box::new(workspace) }),
        Err(denied @ Denied::Hidden { .. }) => Err(denied.into()),
    }
}

/// The workspace with this id, whoever may see it: for jobs, and for calls between services.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn find(conn: &mut PgConnection, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
    let row: Option<Row> =
        sqlx::query_as(select_workspace!("WHERE w.id = $1 AND ", not_deleted!())).bind(id).fetch_optional(conn).await?;
    row.map(Workspace::try_from).transpose()
}

async fn find_by_name(
    conn: &mut PgConnection,
    principal: &Principal,
    name: &str,
) -> Result<Option<Workspace>, StoreError> {
    let own: Option<Row> =
        sqlx::query_as(select_workspace!("WHERE w.owner_id = $1 AND w.name = $2 AND w.deleted_at IS NULL"))
            .bind(principal.user_id)
            .bind(name)
            .fetch_optional(&mut *conn)
            .await?;
    if own.is_some() || !principal.admin {
        return own.map(Workspace::try_from).transpose();
    }
    let mut rows: Vec<Row> = sqlx::query_as(select_workspace!("WHERE w.name = $1 AND w.deleted_at IS NULL LIMIT 2"))
        .bind(name)
        .fetch_all(conn)
        .await?;
    match (rows.pop(), rows.pop()) {
        (Some(row), None) => Workspace::try_from(row).map(Some),
        _ => Ok(None),
    }
}

/// These workspaces, as far as they still exist: for watchers, who check what they may see.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn find_many(conn: &mut PgConnection, ids: &[WorkspaceId]) -> Result<Vec<Workspace>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(concat!(of_ids!(select_workspace), " ORDER BY id DESC"))
        .bind(ids.iter().map(WorkspaceId::as_uuid).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Workspace::try_from).collect()
}
