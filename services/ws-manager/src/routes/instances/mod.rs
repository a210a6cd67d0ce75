//! Instances: start, stop, look, mark, remove.

pub(super) mod activity;
pub(super) mod delete;
pub(super) mod read;
pub(super) mod start;
pub(super) mod stop;
pub(super) mod timeout;
pub(super) mod watch;

use std::sync::Arc;

use berth_http::Problem;
use berth_ids::InstanceId;
use berth_workspace_crd::Workspace;

use super::App;

fn missing(id: InstanceId) -> Problem {
    Problem::not_found(format!("there is no instance {id}"))
}

/// The object from the cache, else from the API server: the cache may lag behind a start that another replica has just made.
async fn find(app: &App, id: InstanceId) -> Result<Arc<Workspace>, Problem> {
    let name = id.to_string();
    if let Some(workspace) = app.cluster.workspaces.get(&name) {
        return Ok(workspace);
    }
    let found = app.cluster.api::<Workspace>().get_opt(&name).await.map_err(super::cluster)?;
    found.map(Arc::new).ok_or_else(|| missing(id))
}
