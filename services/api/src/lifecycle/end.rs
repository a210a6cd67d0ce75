//! Ends runs without a status from ws-manager; and the one way in which a run's row is written.

use berth_db::outbox;
use berth_ids::InstanceId;
use sqlx::PgConnection;

use crate::domain::instance::{Belongings, Instance};
use crate::state::{Api, commit};
use crate::store::{self, StoreError};

/// The topic of lifecycle events.
pub(crate) const TOPIC: &str = "instance";

/// Replaces `before` by `next`, with the event for other services, in the caller's transaction; the caller publishes the change after its
/// commit. Returns false if somebody else was faster.
pub(crate) async fn save(
    conn: &mut PgConnection,
    before: &Instance,
    next: &Instance,
    of: &Belongings,
) -> Result<bool, StoreError> {
    if !store::instances::save(conn, next, before.version).await? {
        return Ok(false);
    }
    if next.differs_for_others(before) {
        publish(conn, next, of).await?;
    }
    Ok(true)
}

/// Sends the event about a run's current state to other services, in the caller's transaction.
pub(crate) async fn publish(conn: &mut PgConnection, instance: &Instance, of: &Belongings) -> Result<(), StoreError> {
    let event = instance.lifecycle(of);
    outbox::publish(conn, TOPIC, &instance.workspace_id.to_string(), &event).await?;
    Ok(())
}

/// Ends a run here, unless it is over.
pub(crate) async fn end(api: &Api, id: InstanceId, reason: &str, failed: bool) -> Result<(), StoreError> {
    let mut transaction = api.begin().await?;
    let Some((before, of)) = store::instances::lock(&mut transaction, id).await? else { return Ok(()) };
    if before.is_over() {
        return Ok(());
    }
    let ended = before.ended(reason, failed, api.now());
    save(&mut transaction, &before, &ended, &of).await?;
    commit(transaction).await?;
    api.changes().publish(ended.workspace_id);
    Ok(())
}
