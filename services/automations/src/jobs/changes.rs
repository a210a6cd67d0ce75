//! Tells whoever waits in this process that a run moved on, or that a file was read, whichever process did that.

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Jobs;
use crate::store::RUNS_CHANNEL;

/// Some run of some workspace moved on, or some file was read.
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
        let failed = |error| tracing::info!(%error, "automations: notices of runs are not heard; will listen again");
        super::again(shutdown, || self.hear(), failed).await;
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
