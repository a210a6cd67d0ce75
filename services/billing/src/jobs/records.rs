//! Derives usage records from the events of instances.

use std::sync::Arc;

use berth_api_types::internal::InstanceLifecycle;
use berth_clock::{Entropy, SharedClock};
use berth_db::outbox::{Event, Handler};
use berth_ids::UsageRecordId;
use sqlx::PgConnection;

use crate::domain::record::interval;
use crate::store::records;

/// Handles events of the topic `instance`. All it does is SQL in the consumer's transaction, so each event counts exactly once.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Handler for Records {
    type Error = sqlx::Error;

    async fn handle(&mut self, conn: &mut PgConnection, event: &Event) -> Result<(), sqlx::Error> {
        let lifecycle: InstanceLifecycle = match event.parse() {
            Ok(lifecycle) => lifecycle,
            Err(error) => {
                // Retrying would not help, and would stop the billing of everybody else.
                tracing::error!(event = event.id, %error, "an instance event is not understood: kept in billing.rejected_events");
                return records::reject(conn, event.id, &event.payload, &error.to_string(), self.clock.now()).await;
            }
        };
        let Some(interval) = interval(&lifecycle, event.created_at) else { return Ok(()) };
        let id = UsageRecordId::new(self.clock.as_ref(), self.entropy.as_ref());
        records::apply(conn, id, &lifecycle, interval).await
    }
}
