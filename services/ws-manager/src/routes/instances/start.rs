//! `POST /internal/instances`: makes the object; the controller does the rest.

use axum::extract::State;
use axum::http::StatusCode;
use berth_api_types::internal::{InstanceStatus, StartInstance};
use berth_http::{Json, Problem};
use berth_workspace_crd::{
    Checkout, FINALIZER, GitIdentity, InstanceType, LABEL_MANAGED_BY, LABEL_WORKSPACE, MANAGED_BY, Repository,
    Timeouts, Workspace, WorkspaceSpec,
};
use kube::ResourceExt as _;

use super::super::App;
use crate::cluster::Outcome;
use crate::domain::instance;

/// 201, or 200 if this very start was requested before.
pub(in crate::routes) async fn handle(
    State(app): State<App>,
    Json(start): Json<StartInstance>,
) -> Result<(StatusCode, Json<InstanceStatus>), Problem> {
    super::super::ready(&app).await?;
    if app.cluster.classes.get(&start.class).is_none() {
        return Err(unknown_class(&app, &start.class));
    }
    if let Some(other) = other_instance(&app, &start) {
        return Err(Problem::conflict(
            "workspace_already_running",
            format!("workspace {} already has instance {other}, which is not stopped", start.workspace_id),
        ));
    }
    let workspace = object(start);
    let (code, workspace) = match app.cluster.create_workspace(&workspace).await.map_err(super::super::cluster)? {
        Outcome::Done(made) => (StatusCode::CREATED, made),
        Outcome::Exists | Outcome::Gone => {
            let name = workspace.name_any();
            let known = app.cluster.api::<Workspace>().get(&name).await.map_err(super::super::cluster)?;
            if known.spec.workspace_id != workspace.spec.workspace_id {
                return Err(Problem::conflict(
                    "instance_conflict",
                    format!("instance {name} belongs to another workspace, {}", known.spec.workspace_id),
                ));
            }
            (StatusCode::OK, known)
        }
    };
    Ok((code, Json(instance::of(&workspace).map_err(Problem::internal)?)))
}

fn unknown_class(app: &App, class: &str) -> Problem {
    let mut known: Vec<_> = app.cluster.classes.all().iter().map(|class| class.name_any()).collect();
    known.sort();
    Problem::unprocessable("unknown_class", format!("class {class:?} does not exist; there are {}", known.join(", ")))
        .with_error("/class", "unknown")
}

/// An instance of the same workspace that is not over: two of them would share a disk.
fn other_instance(app: &App, start: &StartInstance) -> Option<berth_ids::InstanceId> {
    app.cluster
        .directory
        .list_of(start.workspace_id)
        .into_iter()
        .find(|status| {
            status.instance_id != start.instance_id && status.phase != berth_api_types::public::Phase::Stopped
        })
        .map(|status| status.instance_id)
}

fn object(start: StartInstance) -> Workspace {
    let resolved = start.context;
    let context = resolved.context;
    let path = context.checkout_path();
    let spec = WorkspaceSpec {
        workspace_id: start.workspace_id.to_string(),
        workspace_name: start.workspace_name,
        owner_id: start.owner_id.to_string(),
        organization_id: start.organization_id.to_string(),
        kind: InstanceType::Regular,
        class: start.class,
        image: start.image,
        checkout: Checkout {
            repository: Repository {
                clone_url: context.clone_url,
                host: context.host,
                owner: context.owner,
                name: context.name,
            },
            reference: resolved.fetch_ref,
            branch: resolved.branch,
            commit: resolved.commit,
            path,
        },
        git: GitIdentity { name: start.git_name, email: start.git_email },
        timeouts: Timeouts { inactivity_seconds: start.inactivity_seconds, max_lifetime_seconds: None },
        env: start.env,
        allow_private_hosts: start.allow_private_hosts,
    };
    let mut workspace = Workspace::new(&start.instance_id.to_string(), spec);
    workspace.labels_mut().insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    workspace.labels_mut().insert(LABEL_WORKSPACE.to_owned(), start.workspace_id.to_string());
    workspace.finalizers_mut().push(FINALIZER.to_owned());
    workspace
}
