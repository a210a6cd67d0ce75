//! Pages of workspaces, whole or as stamps.

use berth_api_types::public::Phase;
use berth_authz::Authorized;
use berth_ids::{UserId, WorkspaceId};
use sqlx::PgConnection;

use super::row::{Row, Stamp};
use crate::domain::authorize::{
    Installation, ListAllWorkspaces, ListOrganizationWorkspaces, OrganizationScope, ReadOrganization,
};
use crate::domain::instance;
use crate::domain::workspace::Workspace;
use crate::store::StoreError;

/// Whose workspaces are listed.
#[derive(Clone, Debug)]
pub(crate) enum ListScope {
    /// The asker's own.
    Own(UserId),
    /// The asker's own in an organization.
    OwnIn(Authorized<OrganizationScope, ReadOrganization>),
    /// Everybody's in an organization.
    Organization(Authorized<OrganizationScope, ListOrganizationWorkspaces>),
    /// Everybody's.
    All(Authorized<Installation, ListAllWorkspaces>),
}

/// Filters; absent fields do not filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    /// In one of these phases.
    pub phases: Option<Vec<Phase>>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this repository: `host/owner/name`, or its web URL.
    pub repository: Option<String>,
    /// With a name that begins like this.
    pub name: Option<String>,
}

impl ListFilter {
    /// Whether all are wanted.
    pub(crate) const fn is_empty(&self) -> bool {
        self.phases.is_none() && self.class.is_none() && self.repository.is_none() && self.name.is_none()
    }
}

/// The parameters of a page's statement.
struct PageArguments<'a> {
    scope: uuid::Uuid,
    /// With [`ListScope::OwnIn`], whose scope is the organization.
    owner: Option<uuid::Uuid>,
    before: uuid::Uuid,
    phases: Option<Vec<&'static str>>,
    filter: &'a ListFilter,
    limit: i64,
}

impl<'a> PageArguments<'a> {
    fn new(scope: &ListScope, filter: &'a ListFilter, before: Option<WorkspaceId>, limit: i64) -> Self {
        let names = |phases: &Vec<Phase>| phases.iter().map(|phase| instance::phase_name(*phase)).collect();
        Self {
            scope: match scope {
                ListScope::Own(user) => user.as_uuid(),
                ListScope::OwnIn(right) => right.id.as_uuid(),
                ListScope::Organization(right) => right.id.as_uuid(),
                ListScope::All(right) => right.principal().user_id.as_uuid(),
            },
            owner: match scope {
                ListScope::OwnIn(right) => Some(right.principal().user_id.as_uuid()),
                ListScope::Own(_) | ListScope::Organization(_) | ListScope::All(_) => None,
            },
            // The first page begins at the highest possible id.
            before: before.map_or(uuid::Uuid::max(), |id| id.as_uuid()),
            phases: filter.phases.as_ref().map(names),
            filter,
            limit,
        }
    }

    async fn fetch<T>(self, conn: &mut PgConnection, query: &'static str) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let query = sqlx::query_as(query)
            .bind(self.scope)
            .bind(self.before)
            .bind(self.phases)
            .bind(&self.filter.class)
            .bind(&self.filter.repository)
            .bind(&self.filter.name)
            .bind(self.limit);
        match self.owner {
            Some(owner) => query.bind(owner).fetch_all(conn).await,
            None => query.fetch_all(conn).await,
        }
    }
}

/// A page of workspaces older than `before`, the newest first.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn list(
    conn: &mut PgConnection,
    scope: &ListScope,
    filter: &ListFilter,
    before: Option<WorkspaceId>,
    limit: i64,
) -> Result<Vec<Workspace>, StoreError> {
    let query = match scope {
        ListScope::Own(_) => select_workspace!(page_of!("w.owner_id = $1")),
        ListScope::OwnIn(_) => select_workspace!(page_of!("w.organization_id = $1 AND w.owner_id = $8")),
        ListScope::Organization(_) => select_workspace!(page_of!("w.organization_id = $1")),
        ListScope::All(_) => select_workspace!(page_of!("$1::uuid IS NOT NULL")),
    };
    let rows: Vec<Row> = PageArguments::new(scope, filter, before, limit).fetch(conn, query).await?;
    rows.into_iter().map(Workspace::try_from).collect()
}

/// The same page as stamps.
///
/// # Errors
/// The database.
pub(crate) async fn list_stamps(
    conn: &mut PgConnection,
    scope: &ListScope,
    filter: &ListFilter,
    before: Option<WorkspaceId>,
    limit: i64,
) -> Result<Vec<(WorkspaceId, Stamp)>, StoreError> {
    let arguments = PageArguments::new(scope, filter, before, limit);
    let of_all = match scope {
        _ if !filter.is_empty() => None,
        ListScope::Own(_) => Some(in_one_row!(select_stamp!(page_of_all!("w.owner_id = $1")))),
        // Rarely asked for.
        ListScope::OwnIn(_) => None,
        ListScope::Organization(_) => Some(in_one_row!(select_stamp!(page_of_all!("w.organization_id = $1")))),
        ListScope::All(_) => Some(in_one_row!(select_stamp!(page_of_all!("$1::uuid IS NOT NULL")))),
    };
    let rows: Vec<(Vec<uuid::Uuid>, Vec<Stamp>)> = if let Some(query) = of_all {
        sqlx::query_as(query).bind(arguments.scope).bind(arguments.before).bind(limit).fetch_all(conn).await?
    } else {
        let query = match scope {
            ListScope::Own(_) => in_one_row!(select_stamp!(page_of!("w.owner_id = $1"))),
            ListScope::OwnIn(_) => in_one_row!(select_stamp!(page_of!("w.organization_id = $1 AND w.owner_id = $8"))),
            ListScope::Organization(_) => in_one_row!(select_stamp!(page_of!("w.organization_id = $1"))),
            ListScope::All(_) => in_one_row!(select_stamp!(page_of!("$1::uuid IS NOT NULL"))),
        };
        arguments.fetch(conn, query).await?
    };
    Ok(rows.into_iter().flat_map(paired).collect())
}

/// The stamps of these workspaces, in any order.
///
/// # Errors
/// The database.
pub(crate) async fn stamps(
    conn: &mut PgConnection,
    ids: &[WorkspaceId],
) -> Result<Vec<(WorkspaceId, Stamp)>, StoreError> {
    let ids = ids.iter().map(WorkspaceId::as_uuid).collect::<Vec<_>>();
    Ok(paired(sqlx::query_as(in_one_row!(of_ids!(select_stamp))).bind(ids).fetch_one(conn).await?).collect())
}

fn paired((ids, stamps): (Vec<uuid::Uuid>, Vec<Stamp>)) -> impl Iterator<Item = (WorkspaceId, Stamp)> {
    ids.into_iter().map(WorkspaceId::from_uuid).zip(stamps)
}

/// These workspaces with their stamps, read together.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn find_stamped(
    conn: &mut PgConnection,
    ids: &[WorkspaceId],
) -> Result<Vec<(Workspace, Stamp)>, StoreError> {
    let ids = ids.iter().map(WorkspaceId::as_uuid).collect::<Vec<_>>();
    let rows: Vec<Row> = sqlx::query_as(of_ids!(select_workspace)).bind(ids).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| {
            let stamp = row.stamp;
            Workspace::try_from(row).map(|workspace| (workspace, stamp))
        })
        .collect()
}
