//! What runs beside the requests: the consumer of events, and one worker for each instance that has something to do.

pub(crate) mod changes;
pub(crate) mod events;
mod keep_log;
pub(crate) mod manager;
mod read_file;
mod worker;

use std::sync::Arc;

use berth_clock::{Entropy, SharedClock};
use berth_supervisor_client::ClientError;
use sqlx::PgPool;

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
