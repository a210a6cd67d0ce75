//! What ws-manager is told at the start of a run.

use berth_api_types::context::ResolvedContext;
use berth_api_types::internal::StartInstance;
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::store::StoreError;

/// The repository that the workspace is for, and the private hosts that it may reach.
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
