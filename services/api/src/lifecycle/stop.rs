//! Ending a run.

use berth_api_types::internal::StopInstance;
use berth_http::Problem;
use berth_ids::InstanceId;

use super::end;
use crate::state::Api;
use crate::store;

/// Asks ws-manager to stop the run, whose row already says so. If ws-manager cannot be reached, a job tries again.
pub(crate) async fn send(api: &Api, id: InstanceId, reason: &str, abort: bool) -> Result<(), Problem> {
    let body = StopInstance { reason: reason.to_owned(), abort };
    match api.ws_manager().post_empty(&format!("/internal/instances/{id}/stop"), &body).await {
        Ok(()) => {
            let mut conn = api.connection().await?;
            store::instances::stop_accepted(&mut conn, id, api.now()).await?;
            Ok(())
        }
        // It never accepted the start, or no longer knows the run: nothing runs, so the run is over.
        Err(error) if error.is_not_found() => {
            end::end(api, id, reason, false).await?;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(instance = %id, %error, "a stop was not handed over; it will be tried again");
            api.nudge().notify_one();
            Ok(())
        }
    }
}
