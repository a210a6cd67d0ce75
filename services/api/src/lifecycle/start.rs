//! Beginning a run.

use berth_api_types::internal::{PrivateHosts, PrivateHostsQuery, StartInstance};
use berth_api_types::public::{AuditResult, Step};
use berth_authz::{Action as _, Authorized};
use berth_http::{CallError, Problem};
use berth_ids::InstanceId;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::end;
use crate::domain::authorize::StartWorkspace;
use crate::domain::instance::{self, Instance};
use crate::domain::workspace::Workspace;
use crate::state::Api;
use crate::store::audit::Record;
use crate::store::{self, StoreError};

/// Writes a new run with its event, in the caller's transaction.
pub(crate) async fn insert(
    api: &Api,
    conn: &mut PgConnection,
    right: &Authorized<Workspace, StartWorkspace>,
    requested_at: DateTime<Utc>,
    steps: Vec<Step>,
) -> Result<Instance, StoreError> {
    let first = store::instances::never_ran(conn, right.id).await?;
    let id = InstanceId::new(api.clock(), api.entropy());
    let run = Instance::pending(id, right.id, first, requested_at, steps);
    store::instances::insert(conn, right, &run, api.now()).await?;
    end::publish(conn, &run, &right.belongings()).await?;
    Ok(run)
}

/// A private host that was allowed when the workspace was made, and no longer is, is not opened.
async fn hand_over(api: &Api, start: &mut StartInstance) -> Result<(), CallError> {
    if !start.allow_private_hosts.is_empty() {
        let question = PrivateHostsQuery { clone_url: start.context.context.clone_url.clone() };
        let allowed: PrivateHosts = api.scm().post("/internal/private-hosts", &question).await?;
        start.allow_private_hosts = allowed.allow_private_hosts;
    }
    api.ws_manager().post_empty("/internal/instances", start).await
}

/// Hands the run to ws-manager. If ws-manager refuses, the run is over, with that reason; if it cannot be reached, a job tries again. Either
/// way the row says what happened, so neither is an error here.
///
/// `measured` is when the step `create` began, with the steps before it; a job that sends a run again has none.
pub(crate) async fn send(
    api: &Api,
    id: InstanceId,
    measured: Option<(DateTime<Utc>, Vec<Step>)>,
) -> Result<(), Problem> {
    let mut conn = api.connection().await?;
    let Some(mut start) = store::workspaces::start_of(&mut conn, id).await? else { return Ok(()) };
    // No database connection is held during the calls: a slow service must not use up the pool.
    drop(conn);
    match hand_over(api, &mut start).await {
        Ok(()) => {
            let now = api.now();
            let steps = measured.map(|(began, mut steps)| {
                steps.push(instance::step("create", began, now));
                steps
            });
            let mut conn = api.connection().await?;
            store::instances::accepted(&mut conn, id, steps.as_deref(), now).await?;
            drop(conn);
            api.changes().publish(start.workspace_id);
            Ok(())
        }
        Err(CallError::Problem(body)) if (400..500).contains(&body.status) && body.status != 429 => {
            tracing::info!(instance = %id, code = %body.code, detail = %body.detail, "ws-manager refused a start");
            end::end(api, id, &body.detail, true).await?;
            let record = Record::system("ws-manager", StartWorkspace::NAME).result(AuditResult::Failed);
            let record = record.on("workspace", start.workspace_id.as_uuid(), start.workspace_name);
            let mut conn = api.connection().await?;
            api.audit(&mut conn, record.detail(serde_json::json!({ "instance_id": id, "reason": body.detail })))
                .await?;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(instance = %id, %error, "a start was not handed over; it will be tried again");
            api.nudge().notify_one();
            Ok(())
        }
    }
}
