//! Completes what requests left unfinished: starts and stops that ws-manager has not accepted, deletions that are not done.

use std::fmt::Display;
use std::time::Duration;

use berth_http::Problem;
use berth_ids::InstanceId;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{delete, start, stop};
use crate::state::Api;
use crate::store::{self, StoreError};

/// It looks at least this often; a request that could not reach ws-manager wakes it.
const EVERY: Duration = Duration::from_secs(10);
/// Pause after a request woke it: ws-manager was unreachable a moment ago.
const AFTER_NUDGE: Duration = Duration::from_millis(500);
/// A request younger than this is probably still working on it.
const LEAVE_ALONE_SECONDS: i64 = 5;
/// Time that one deletion may take within a round.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(api: Api, shutdown: CancellationToken) {
    // The first round takes up everything that the previous process left: no request of this process is at work yet.
    let mut leave_alone = TimeDelta::zero();
    loop {
        // It may be interrupted anywhere: the next process completes it.
        let Some(done) = shutdown.run_until_cancelled(round(&api, leave_alone)).await else { return };
        if let Err(error) = done {
            tracing::warn!(error = %berth_http::problem::chain(&error), "starts, stops and deletions could not be looked for");
        }
        leave_alone = TimeDelta::seconds(LEAVE_ALONE_SECONDS);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = api.nudge().notified() => {
                leave_alone = TimeDelta::zero();
                tokio::time::sleep(AFTER_NUDGE).await;
            }
            () = shutdown.cancelled() => return,
        }
    }
}

async fn round(api: &Api, leave_alone: TimeDelta) -> Result<(), StoreError> {
    let before = api.now() - leave_alone;
    let mut conn = api.connection().await?;
    let starts = store::instances::unaccepted(&mut conn, before).await?;
    let stops = store::instances::unsent_stops(&mut conn, before).await?;
    let deletions = store::workspaces::being_deleted(&mut conn).await?;
    drop(conn);
    for id in stops {
        note("stop", id, send_stop(api, id).await);
    }
    for id in starts {
        note("start", id, start::send(api, id, None).await);
    }
    for id in deletions {
        note("deletion", id, delete::advance(api, id, PATIENCE).await.map(drop));
    }
    Ok(())
}

async fn send_stop(api: &Api, id: InstanceId) -> Result<(), Problem> {
    let mut conn = api.connection().await?;
    let reason = store::instances::stop_reason(&mut conn, id).await?;
    drop(conn);
    let abort = reason == delete::REASON;
    stop::send(api, id, &reason, abort).await
}

/// A workspace that fails again and again must not hold up those behind it.
fn note(what: &'static str, id: impl Display, result: Result<(), Problem>) {
    if let Err(problem) = result {
        let error = berth_http::problem::chain(&problem);
        tracing::warn!(what, %id, error, "it could not be carried on; the next round tries again");
    }
}
