//! Workspaces, each with its newest run: one round trip to show one.

use std::sync::Arc;

use berth_api_types::context::ResolvedContext;
use berth_api_types::internal::{ResolveContextReply, StartInstance};
use berth_api_types::public::{Phase, Step};
use berth_authz::{Authorized, Denied, Principal};
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::StoreError;
use super::audit::{Entry, audited};
use crate::domain::authorize::{
    DeleteWorkspace, Installation, ListAllWorkspaces, ListOrganizationWorkspaces, OrganizationScope,
    SpendInOrganization, UpdateWorkspace, WorkspaceAct,
};
use crate::domain::instance::{self, Instance};
use crate::domain::workspace::Workspace;

macro_rules! select_workspace {
    ($($tail:tt)*) => {
        concat!(
            "SELECT w.id, w.name, w.owner_id, w.organization_id, w.context_url, w.repository, w.repository_key, w.reference, w.commit_id,
               w.checkout_path, w.class, w.image, w.inactivity_seconds, w.revision, w.created_at, w.deleting_at IS NOT NULL AS deleting, (w.xmin::text::bigint << 32) | coalesce(i.xmin::text::bigint, 0) AS stamp,
               i.id AS instance_id, i.first_start, i.phase, i.reason, i.failed, i.version, i.node, i.image_digest, i.request_steps, i.steps,
               i.requested_at, i.total_us, i.started_at, i.stopped_at, i.last_activity, i.timeout_warning, i.accepted_at,
               i.stop_requested_at, i.stop_reason
             FROM api.workspaces w LEFT JOIN api.instances i ON i.id = w.instance_id ",
            $($tail)*
        )
    };
}

/// The same rows, as their stamps only.
macro_rules! select_stamp {
    ($($tail:tt)*) => {
        concat!(
            "SELECT w.id, (w.xmin::text::bigint << 32) | coalesce(i.xmin::text::bigint, 0) AS stamp
             FROM api.workspaces w LEFT JOIN api.instances i ON i.id = w.instance_id ",
            $($tail)*
        )
    };
}

/// A page's stamps in one row: fifty rows cost more to send and to take apart than to find.
macro_rules! in_one_row {
    ($stamps:expr) => {
        concat!("SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(stamp), '{}') FROM (", $stamps, ") AS page")
    };
}

/// That a workspace was not deleted, for a lookup by its key. Said plainly, as lists do, it would let Postgres use an index of the
/// workspaces that are there; when it has planned with such an index nearly empty, it reads the whole of it for one workspace, and keeps
/// that plan while the index grows.
macro_rules! not_deleted {
    () => {
        "coalesce(w.deleted_at, 'infinity') = 'infinity'"
    };
}

/// The rows of the workspaces in `$1`, as the given macro selects them, each looked up by its key. The array comes from a subquery, so
/// that plans do not differ by its length and one is made for all.
macro_rules! of_ids {
    ($select:ident) => {
        concat!(
            "SELECT found.* FROM unnest((SELECT $1::uuid[])) AS wanted(id), LATERAL (",
            $select!("WHERE w.id = wanted.id AND ", not_deleted!(), " LIMIT 1"),
            ") AS found"
        )
    };
}

/// The rows of a page; one statement a scope, so that each is planned for its own index.
macro_rules! page_of {
    ($scope:literal) => {
        concat!(
            "WHERE ",
            $scope,
            " AND w.id < $2 AND w.deleted_at IS NULL
               AND ($3::text[] IS NULL OR coalesce(i.phase, 'Stopped') = ANY($3)) AND ($4::text IS NULL OR w.class = $4)
               AND ($5::text IS NULL OR w.repository_key = $5 OR w.repository = $5) AND ($6::text IS NULL OR starts_with(w.name, $6))
             ORDER BY w.id DESC LIMIT $7"
        )
    };
}

/// The rows of a page without a filter. A statement of its own: with filters that may be absent Postgres would plan anew at each execution.
macro_rules! page_of_all {
    ($scope:literal) => {
        concat!("WHERE ", $scope, " AND w.id < $2 AND w.deleted_at IS NULL ORDER BY w.id DESC LIMIT $3")
    };
}

/// Changes with each write of a workspace's row or of its newest run's: made of the transactions that wrote them last, so no code can forget
/// to change it.
pub(crate) type Stamp = i64;

#[derive(sqlx::FromRow)]
struct Row {
    id: WorkspaceId,
    name: String,
    owner_id: UserId,
    organization_id: OrganizationId,
    context_url: String,
    repository: String,
    repository_key: String,
    reference: Option<String>,
    commit_id: Option<String>,
    checkout_path: String,
    class: String,
    image: Option<String>,
    inactivity_seconds: Option<i32>,
    revision: i64,
    created_at: DateTime<Utc>,
    deleting: bool,
    stamp: Stamp,
    instance_id: Option<InstanceId>,
    first_start: Option<bool>,
    phase: Option<String>,
    reason: Option<String>,
    failed: Option<bool>,
    version: Option<i64>,
    node: Option<String>,
    image_digest: Option<String>,
    request_steps: Option<Json<Vec<Step>>>,
    steps: Option<Json<Vec<Step>>>,
    requested_at: Option<DateTime<Utc>>,
    total_us: Option<i64>,
    started_at: Option<DateTime<Utc>>,
    stopped_at: Option<DateTime<Utc>>,
    last_activity: Option<DateTime<Utc>>,
    timeout_warning: Option<String>,
    accepted_at: Option<DateTime<Utc>>,
    stop_requested_at: Option<DateTime<Utc>>,
    stop_reason: Option<String>,
}

pub(super) fn phase(text: &str, id: InstanceId) -> Result<Phase, StoreError> {
    instance::parse_phase(text).ok_or_else(|| StoreError::Corrupt {
        table: "api.instances",
        column: "phase",
        id: id.to_string(),
        value: text.to_owned(),
    })
}

impl TryFrom<Row> for Workspace {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str, value: String| StoreError::Corrupt {
            table: "api.workspaces",
            column,
            id: row.id.to_string(),
            value,
        };
        let inactivity_seconds = row
            .inactivity_seconds
            .map(|seconds| u32::try_from(seconds).map_err(|_| corrupt("inactivity_seconds", seconds.to_string())))
            .transpose()?;
        let instance = match (row.instance_id, row.phase, row.requested_at) {
            (Some(id), Some(text), Some(requested_at)) => Some(Instance {
                id,
                workspace_id: row.id,
                first_start: row.first_start.unwrap_or_default(),
                phase: phase(&text, id)?,
                reason: row.reason.unwrap_or_default(),
                failed: row.failed.unwrap_or_default(),
                version: row.version.unwrap_or_default(),
                node: row.node,
                image_digest: row.image_digest,
                request_steps: row.request_steps.map(|steps| steps.0).unwrap_or_default(),
                steps: row.steps.map(|steps| steps.0).unwrap_or_default(),
                requested_at,
                total_us: row.total_us,
                started_at: row.started_at,
                stopped_at: row.stopped_at,
                last_activity: row.last_activity,
                timeout_warning: row.timeout_warning,
                accepted_at: row.accepted_at,
                stop_requested_at: row.stop_requested_at,
                stop_reason: row.stop_reason.unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Self {
            id: row.id,
            name: row.name,
            owner_id: row.owner_id,
            organization_id: row.organization_id,
            context_url: row.context_url,
            repository: row.repository,
            repository_key: row.repository_key,
            reference: row.reference,
            commit: row.commit_id,
            checkout_path: row.checkout_path,
            class: row.class,
            image: row.image,
            inactivity_seconds,
            revision: row.revision,
            created_at: row.created_at,
            deleting: row.deleting,
            instance,
        })
    }
}

/// Why a workspace was not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is none, or the caller may not know of it, or may not do this to it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The caller may not do this, and the workspace is theirs to know: for the audit log.
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

/// These workspaces, those that are left of them: for watchers, who check what they may see.
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

/// Whose workspaces are listed.
#[derive(Clone, Debug)]
pub(crate) enum ListScope {
    /// The asker's own.
    Own(UserId),
    /// Everybody's in an organization.
    Organization(Authorized<OrganizationScope, ListOrganizationWorkspaces>),
    /// Everybody's.
    All(Authorized<Installation, ListAllWorkspaces>),
}

/// Which of them; absent fields do not choose.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    /// In one of these phases.
    pub phases: Option<Vec<Phase>>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this repository: `host/owner/name`, or its web URL.
    pub repository: Option<String>,
    /// With a name that begins so.
    pub name: Option<String>,
}

impl ListFilter {
    /// Whether all are wanted.
    pub(crate) const fn is_empty(&self) -> bool {
        self.phases.is_none() && self.class.is_none() && self.repository.is_none() && self.name.is_none()
    }
}

/// What a page's statement is asked with.
struct PageArguments<'a> {
    scope: uuid::Uuid,
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
                ListScope::Organization(right) => right.id.as_uuid(),
                ListScope::All(right) => right.principal().user_id.as_uuid(),
            },
            // The first page begins at the highest id there can be.
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
        sqlx::query_as(query)
            .bind(self.scope)
            .bind(self.before)
            .bind(self.phases)
            .bind(&self.filter.class)
            .bind(&self.filter.repository)
            .bind(&self.filter.name)
            .bind(self.limit)
            .fetch_all(conn)
            .await
    }
}

/// A page, the newest first, older than `before`.
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
    let rows: Vec<(Vec<uuid::Uuid>, Vec<Stamp>)> = if filter.is_empty() {
        let query = match scope {
            ListScope::Own(_) => in_one_row!(select_stamp!(page_of_all!("w.owner_id = $1"))),
            ListScope::Organization(_) => in_one_row!(select_stamp!(page_of_all!("w.organization_id = $1"))),
            ListScope::All(_) => in_one_row!(select_stamp!(page_of_all!("$1::uuid IS NOT NULL"))),
        };
        sqlx::query_as(query).bind(arguments.scope).bind(arguments.before).bind(limit).fetch_all(conn).await?
    } else {
        let query = match scope {
            ListScope::Own(_) => in_one_row!(select_stamp!(page_of!("w.owner_id = $1"))),
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

/// Makes a workspace without a run, with its row of the audit log and the note for a repeated request; false: its owner has another of this
/// name, and nothing was written.
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

/// Changes its settings, with its row of the audit log; the new revision, or none when it was changed since `expected`.
///
/// # Errors
/// [`super::Conflict::WorkspaceName`], or the database.
pub(crate) async fn update(
    conn: &mut PgConnection,
    right: &Authorized<Workspace, UpdateWorkspace>,
    change: &SettingsChange<'_>,
    entry: Entry<'_>,
) -> Result<Option<i64>, StoreError> {
    let query = sqlx::query(audited!(
        "UPDATE api.workspaces SET name = coalesce($15, name), inactivity_seconds = coalesce($16, inactivity_seconds),
             revision = revision + 1, updated_at = $18
         WHERE id = $14 AND deleting_at IS NULL AND ($17::bigint IS NULL OR revision = $17)
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
    /// Only if its revision still is this.
    pub expected: Option<i64>,
    /// When.
    pub now: DateTime<Utc>,
}

/// Notes that it is to be deleted; false: it was already.
///
/// # Errors
/// The database.
pub(crate) async fn mark_deleting(
    conn: &mut PgConnection,
    right: &Authorized<Workspace, DeleteWorkspace>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let marked = sqlx::query(
        "UPDATE api.workspaces SET deleting_at = $2, updated_at = $2, revision = revision + 1 WHERE id = $1 AND deleting_at IS NULL",
    )
    .bind(right.id)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(marked.rows_affected() == 1)
}

/// Those that are being deleted, the oldest first.
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

/// What it was made for, and the private hosts that it may reach.
///
/// # Errors
/// The database.
pub(crate) async fn context(
    conn: &mut PgConnection,
    id: WorkspaceId,
) -> Result<Option<(ResolvedContext, Vec<String>)>, StoreError> {
    let row: Option<(Json<ResolvedContext>, Vec<String>)> =
        sqlx::query_as("SELECT context, allow_private_hosts FROM api.workspaces WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|(context, hosts)| (context.0, hosts)))
}

#[derive(sqlx::FromRow)]
struct StartRow {
    workspace_id: WorkspaceId,
    workspace_name: String,
    owner_id: UserId,
    organization_id: OrganizationId,
    class: String,
    image: Option<String>,
    context: Json<ResolvedContext>,
    git_name: String,
    git_email: String,
    inactivity_seconds: Option<i32>,
    allow_private_hosts: Vec<String>,
}

/// Everything ws-manager is told at the start of a run.
///
/// # Errors
/// The database.
pub(crate) async fn start_of(
    conn: &mut PgConnection,
    instance: InstanceId,
) -> Result<Option<StartInstance>, StoreError> {
    let row: Option<StartRow> = sqlx::query_as(
        "SELECT w.id AS workspace_id, w.name AS workspace_name, w.owner_id, w.organization_id, w.class, w.image, w.context,
             u.name AS git_name, u.git_email, w.inactivity_seconds, w.allow_private_hosts
         FROM api.instances i JOIN api.workspaces w ON w.id = i.workspace_id JOIN api.users u ON u.id = w.owner_id
         WHERE i.id = $1",
    )
    .bind(instance)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| StartInstance {
        instance_id: instance,
        workspace_id: row.workspace_id,
        workspace_name: row.workspace_name,
        owner_id: row.owner_id,
        organization_id: row.organization_id,
        class: row.class,
        image: row.image,
        context: row.context.0,
        git_name: row.git_name,
        git_email: row.git_email,
        inactivity_seconds: row.inactivity_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
        env: std::collections::BTreeMap::new(),
        allow_private_hosts: row.allow_private_hosts,
    }))
}
