//! Writes into the audit log what other services did on somebody's behalf, from the outbox's topic `audit`.

use berth_api_types::internal::AuditEvent;
use berth_db::outbox::{Consumer, Event, Handler};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::state::Api;
use crate::store::{self, StoreError};

pub(crate) async fn run(api: Api, shutdown: CancellationToken) {
    Consumer::new(api.pool().clone(), "api", &["audit"]).run(Reported, shutdown).await;
}

struct Reported;

impl Handler for Reported {
    type Error = StoreError;

    async fn handle(&mut self, conn: &mut PgConnection, event: &Event) -> Result<(), StoreError> {
        match event.parse::<AuditEvent>() {
            Ok(reported) => store::audit::write_reported(conn, &reported, event.id).await,
            Err(error) => {
                // An event that cannot be parsed must not keep the others out of the log; the outbox still has it.
                tracing::error!(event = event.id, key = %event.key, %error, "an audit event is not understood: it is not in the log");
                Ok(())
            }
        }
    }
}
