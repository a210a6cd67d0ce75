//! The internal API. Types: `berth_api_types::internal`; errors are problems (RFC 9457).

mod classes;
mod disks;
mod instances;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{delete, get, post, put};
use berth_http::Problem;

use crate::controller::Context;

pub(crate) type App = Arc<Context>;

/// A server that is starting is ready within this time; one that has lost its store says so.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// All of it.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/internal/instances", post(instances::start::handle).get(instances::read::list))
        .route("/internal/instances/watch", get(instances::watch::handle))
        .route("/internal/instances/{id}", get(instances::read::get).delete(instances::delete::handle))
        .route("/internal/instances/{id}/stop", post(instances::stop::handle))
        .route("/internal/instances/{id}/activity", post(instances::activity::handle))
        .route("/internal/instances/{id}/timeout", put(instances::timeout::handle))
        .route("/internal/disks/{workspace_id}", delete(disks::delete))
        .route("/internal/classes", get(classes::list))
        .with_state(app)
}

/// Waits, but not for long, until the cluster was listed once: before that an object that is not known may still exist.
async fn ready(app: &App) -> Result<(), Problem> {
    tokio::time::timeout(READY_WITHIN, app.cluster.synced())
        .await
        .map_err(|_| Problem::unavailable("the cluster's API server has not answered yet; try again"))
}

/// Translates a failed call to the API server into a problem: its refusals are ours to explain, its absence is temporary.
fn cluster(error: kube::Error) -> Problem {
    match error {
        kube::Error::Api(status) if status.code == 429 || status.code >= 500 => {
            Problem::unavailable("the cluster's API server cannot do this now; try again").with_source(status.message)
        }
        kube::Error::Api(status) => Problem::internal(format!("the API server refused: {}", status.message)),
        error => Problem::unavailable("the cluster's API server cannot be reached; try again").with_source(error),
    }
}
