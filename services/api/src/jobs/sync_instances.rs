//! Keeps `api.instances` in step with ws-manager: by its watch, which begins with everything at each connection, and by a list once in a
//! while.
//!
//! An older status never wins (compare-and-swap on the version), and what is over here stays over. A run that ws-manager accepted and no
//! longer knows is lost, and ends with that reason; a run that goes on there although it is over here is stopped there. Once the final status
//! of a run is stored, ws-manager is told so, and forgets the run.

use std::collections::HashSet;
use std::time::Duration;

use berth_api_types::internal::{InstanceEvent, InstanceStatus, StopInstance};
use berth_api_types::public::Phase;
use berth_http::CallError;
use berth_ids::InstanceId;
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::domain::instance::{LOST, Verdict};
use crate::lifecycle::end;
use crate::state::{Api, commit};
use crate::store::{self, StoreError};

/// A run that was handed over this shortly before a list may be missing in it.
const FRESH_SECONDS: i64 = 5;

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("ws-manager cannot be watched")]
    Call(#[from] CallError),
    #[error("a status could not be kept")]
    Store(#[from] StoreError),
    #[error("ws-manager ended the watch")]
    Ended,
}

pub(crate) async fn run(api: Api, shutdown: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let began = tokio::time::Instant::now();
        let result = tokio::select! {
            result = watch(&api) => result,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = result {
            tracing::info!(error = %berth_http::problem::chain(&error), "instances: watching again");
        }
        if began.elapsed() > Duration::from_secs(10) {
            pause = Duration::from_millis(100);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            () = shutdown.cancelled() => return,
        }
    }
}

async fn watch(api: &Api) -> Result<(), SyncError> {
    let connected_at = api.now();
    let mut events = api.ws_manager().events::<InstanceEvent>("/internal/instances/watch").await?;
    let mut reconcile = tokio::time::interval(Duration::from_secs(u64::from(api.config().reconcile_seconds)));
    reconcile.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    reconcile.reset();
    let mut listed = Some(HashSet::new());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(InstanceEvent::Status(status))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(status.instance_id);
                    }
                    apply(api, &status).await?;
                }
                Some(Ok(InstanceEvent::Synced)) => {
                    if let Some(listed) = listed.take() {
                        end_lost(api, &listed, connected_at).await?;
                    }
                }
                // Its final status came earlier, so there is something to do only if that was missed.
                Some(Ok(InstanceEvent::Gone { instance_id })) => end_unknown(api, instance_id).await?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(SyncError::Ended),
            },
            _ = reconcile.tick() => compare(api).await?,
        }
    }
}

/// Compares all runs with ws-manager's list, for what the watch may have missed.
async fn compare(api: &Api) -> Result<(), SyncError> {
    let asked_at = api.now();
    let statuses: Vec<InstanceStatus> = api.ws_manager().get("/internal/instances").await?;
    let mut listed = HashSet::with_capacity(statuses.len());
    for status in &statuses {
        listed.insert(status.instance_id);
        apply(api, status).await?;
    }
    end_lost(api, &listed, asked_at).await
}

/// Ends the runs that ws-manager accepted before `asked_at` and did not list.
async fn end_lost(api: &Api, listed: &HashSet<InstanceId>, asked_at: DateTime<Utc>) -> Result<(), SyncError> {
    let mut conn = api.connection().await?;
    let before = asked_at - TimeDelta::seconds(FRESH_SECONDS);
    let live = store::instances::accepted_and_live(&mut conn, before).await?;
    drop(conn);
    for id in live.into_iter().filter(|id| !listed.contains(id)) {
        tracing::warn!(instance = %id, "ws-manager does not know a run that it took");
        end_unknown(api, id).await?;
    }
    Ok(())
}

/// Ends a run that ws-manager has no record of, unless it is over.
async fn end_unknown(api: &Api, id: InstanceId) -> Result<(), SyncError> {
    let mut conn = api.connection().await?;
    let asked = store::instances::stop_reason(&mut conn, id).await?;
    drop(conn);
    let (reason, failed) = if asked.is_empty() { (LOST, true) } else { (asked.as_str(), false) };
    end::end(api, id, reason, failed).await?;
    Ok(())
}

/// Takes a status over.
async fn apply(api: &Api, status: &InstanceStatus) -> Result<(), SyncError> {
    let id = status.instance_id;
    let mut transaction = api.begin().await?;
    let Some((before, of)) = store::instances::lock(&mut transaction, id).await? else {
        tracing::warn!(instance = %id, workspace = %status.workspace_id, "ws-manager runs an instance that is not in the database");
        return Ok(());
    };
    match before.judge(status, api.now()) {
        Verdict::Stale => Ok(()),
        Verdict::Terminal { still_runs: false } => {
            drop(transaction);
            if of.deleted && status.phase == Phase::Stopped {
                // It was started while it was being deleted, and may have made a disk again.
                api.ws_manager().delete(&format!("/internal/disks/{}", status.workspace_id)).await?;
            }
            acknowledge(api, status).await
        }
        Verdict::Terminal { still_runs: true } => {
            drop(transaction);
            let reason = if before.reason.is_empty() { "it is over" } else { before.reason.as_str() };
            let body = StopInstance { reason: reason.to_owned(), abort: of.deleted };
            tracing::warn!(instance = %id, "ws-manager runs an instance that is over; stopping it");
            match api.ws_manager().post_empty(&format!("/internal/instances/{id}/stop"), &body).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            }
        }
        Verdict::Apply(mut next) => {
            // A status proves that the start was accepted, whatever became of the answer to it.
            next.accepted_at = next.accepted_at.or(Some(api.now()));
            end::save(&mut transaction, &before, &next, &of).await?;
            commit(transaction).await?;
            api.changes().publish(next.workspace_id);
            if next.is_over() { acknowledge(api, status).await } else { Ok(()) }
        }
    }
}

/// The final status is stored: ws-manager may forget the run.
async fn acknowledge(api: &Api, status: &InstanceStatus) -> Result<(), SyncError> {
    if status.phase != Phase::Stopped {
        return Ok(());
    }
    let id = status.instance_id;
    api.ws_manager().delete(&format!("/internal/instances/{id}")).await?;
    let mut conn = api.connection().await?;
    store::instances::acknowledged(&mut conn, id, api.now()).await?;
    Ok(())
}
