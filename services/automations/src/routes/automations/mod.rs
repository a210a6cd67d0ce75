//! `/api/v1/workspaces/{workspace}/tasks` and `/services`: one code for both, two paths ([`of_kind`](crate::routes::of_kind)).

pub(super) mod list;
pub(super) mod logs;
pub(super) mod reload;
pub(super) mod show;
pub(super) mod start;
pub(super) mod stop;

use std::collections::BTreeMap;

use berth_api_types::automations::{Automation, AutomationKind, AutomationPhase};
use berth_api_types::internal::Authorized;
use berth_http::Problem;
use berth_ids::WorkspaceId;
use sqlx::PgConnection;

use crate::State;
use crate::domain::definition::Definition;
use crate::domain::file::{Role, Trigger};
use crate::routes::access;
use crate::routes::of_kind::noun;
use crate::store::executions::{self, Newest};
use crate::store::workspaces;

/// The audit log's row of a task or service that somebody started or stopped.
async fn audit(
    state: &State,
    conn: &mut PgConnection,
    who: &Authorized,
    kind: AutomationKind,
    verb: &str,
    reference: &str,
) -> Result<(), Problem> {
    let noun = noun(kind);
    access::audit(state, conn, who, &format!("{noun}.{verb}"), noun, &format!("{}/{reference}", who.workspace_name))
        .await
}

fn missing(kind: AutomationKind, reference: &str) -> Problem {
    let noun = noun(kind);
    let shown: String = reference.chars().filter(|c| !c.is_control()).take(128).collect();
    Problem::not_found(format!("the workspace has no {noun} {shown:?}: `berth {noun} list` shows what it has"))
}

/// A definition and its newest run, as the API shows them.
fn shown(reference: String, definition: Definition, newest: Option<Newest>) -> Automation {
    let role = match (definition.kind, definition.role) {
        (AutomationKind::Task, _) => None,
        (AutomationKind::Service, Role::Default) => Some("default"),
        (AutomationKind::Service, Role::Editor) => Some("editor"),
        (AutomationKind::Service, Role::AiAgent) => Some("ai-agent"),
    };
    let names =
        |triggers: &mut dyn Iterator<Item = &Trigger>| triggers.map(|trigger| trigger.name().to_owned()).collect();
    let (phase, reason, execution) = match newest {
        Some(newest) => (newest.phase, newest.reason, Some(newest.execution)),
        None => (AutomationPhase::Idle, String::new(), None),
    };
    Automation {
        reference,
        kind: definition.kind,
        name: definition.name,
        description: definition.description,
        role: role.map(str::to_owned),
        phase,
        reason,
        triggered_by: names(&mut definition.triggered_by.iter()),
        not_fired_yet: names(&mut definition.triggered_by.iter().filter(|trigger| !trigger.fires())),
        depends_on: definition.depends_on,
        execution,
    }
}

/// All tasks, or all services, of a workspace.
async fn all(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    kind: AutomationKind,
) -> Result<BTreeMap<String, Automation>, sqlx::Error> {
    let definitions = workspaces::definitions(conn, workspace).await?;
    let mut newest = executions::newest(conn, workspace, None).await?;
    Ok(definitions
        .0
        .into_iter()
        .filter(|(_, definition)| definition.kind == kind)
        .map(|(key, definition)| {
            let run = newest.remove(&key);
            (key.clone(), shown(key, definition, run))
        })
        .collect())
}

/// One task or service.
async fn one(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    kind: AutomationKind,
    reference: &str,
) -> Result<Automation, Problem> {
    let definition = workspaces::definition(conn, workspace, reference).await.map_err(Problem::internal)?;
    let Some(definition) = definition.filter(|definition| definition.kind == kind) else {
        return Err(missing(kind, reference));
    };
    let mut newest = executions::newest(conn, workspace, Some(reference)).await.map_err(Problem::internal)?;
    Ok(shown(reference.to_owned(), definition, newest.remove(reference)))
}
