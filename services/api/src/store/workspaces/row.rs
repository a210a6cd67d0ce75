//! A workspace with its newest run, as one row.

use berth_api_types::public::{Phase, Resources, Step};
use berth_ids::{InstanceId, OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use sqlx::types::Json;

use crate::domain::instance::{self, Instance};
use crate::domain::workspace::Workspace;
use crate::store::StoreError;

/// Changes with each write of a workspace's row or of its newest run's: it is made of the ids of the transactions that last wrote them, so no
/// code can forget to change it.
pub(crate) type Stamp = i64;

#[derive(sqlx::FromRow)]
pub(super) struct Row {
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
    pub(super) stamp: Stamp,
    instance_id: Option<InstanceId>,
    first_start: Option<bool>,
    phase: Option<String>,
    reason: Option<String>,
    failed: Option<bool>,
    version: Option<i64>,
    node: Option<String>,
    image_digest: Option<String>,
    resources: Option<Json<Resources>>,
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

pub(in crate::store) fn phase(text: &str, id: InstanceId) -> Result<Phase, StoreError> {
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
                resources: row.resources.map(|resources| resources.0),
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
