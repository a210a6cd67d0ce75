//! What runs beside the requests: the consumer of events, and one worker for each instance that has something to do.

pub(crate) mod changes;
pub(crate) mod events;
mod keep_log;
pub(crate) mod manager;
mod read_file;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Entropy, SharedClock};
use berth_ids::ExecutionId;
use berth_supervisor_client::ClientError;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use self::changes::Changes;
use crate::supervisors::{ConnectError, Supervisors};

/// What the jobs share.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    pub(crate) pool: PgPool,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) supervisors: Supervisors,
    pub(crate) kept_log_bytes: u64,
    pub(crate) changes: Changes,
}

impl Jobs {
    /// An id for a new run.
    pub(crate) fn next_id(&self) -> ExecutionId {
        ExecutionId::new(self.clock.as_ref(), self.entropy.as_ref())
    }
}

/// Does `work`, which ends only when the database is away, again a second after each end, until `shutdown`.
async fn again<F: Future<Output = Result<(), sqlx::Error>>>(
    shutdown: &CancellationToken,
    work: impl Fn() -> F,
    failed: impl Fn(sqlx::Error),
) {
    loop {
        let done = tokio::select! {
            done = work() => done,
            () = shutdown.cancelled() => return,
        };
        done.unwrap_or_else(&failed);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Why a worker has to start over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The database.
    #[error("the state of automations cannot be read or written")]
    Database(#[from] sqlx::Error),
    /// The way to the workspace.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The workspace's supervisor.
    #[error(transparent)]
    Supervisor(#[from] ClientError),
}
