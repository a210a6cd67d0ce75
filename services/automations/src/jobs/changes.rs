//! Tells whoever waits in this process that a run moved on, whichever process moved it.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Jobs;
use crate::store::RUNS_CHANNEL;

/// Some run of some workspace moved on.
#[derive(Clone, Debug)]
pub(crate) struct Changes(watch::Sender<()>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Changes {
    /// Sees every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Jobs {
    /// Passes the database's notices on until `shutdown`.
    pub(crate) async fn follow_changes(&self, shutdown: &CancellationToken) {
        loop {
            let heard = tokio::select! {
                heard = self.hear() => heard,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = heard {
                tracing::info!(%error, "automations: notices of runs are not heard; will listen again");
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn hear(&self) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(RUNS_CHANNEL).await?;
        loop {
            // What was told while nobody listened, or while the connection was lost, may be what somebody waits for.
            self.changes.0.send_replace(());
            if listener.try_recv().await?.is_none() {
                tracing::debug!("automations: the connection for notices was made again");
            }
        }
    }
}
