//! Removes expired sessions, and idempotent answers after a day.

use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::state::Api;
use crate::store::{self, StoreError};

const EVERY: Duration = Duration::from_secs(3600);

pub(crate) async fn run(api: Api, shutdown: CancellationToken) {
    loop {
        if let Err(error) = once(&api).await {
            tracing::warn!(error = %berth_http::problem::chain(&error), "old sessions and answers could not be removed");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn once(api: &Api) -> Result<(), StoreError> {
    let now = api.now();
    let idle = TimeDelta::seconds(i64::from(api.config().session_idle_seconds));
    let mut conn = api.connection().await?;
    let sessions = store::sessions::prune(&mut conn, now, now - idle).await?;
    let answers = store::idempotency::prune(&mut conn, now - TimeDelta::days(1)).await?;
    if sessions + answers > 0 {
        tracing::debug!(sessions, answers, "removed what is over");
    }
    Ok(())
}
