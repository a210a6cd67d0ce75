//! Stamps of single workspaces, read for many requests with one statement.
//!
//! Most requests show one workspace that has not changed; what they cost is the round trip. While statements are on their way, those who ask
//! gather for the next, so a busy server asks the database less often the busier it is, and a quiet one at once. A statement that has begun
//! takes nobody in: no stamp is older than the question for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_http::Problem;
use berth_ids::WorkspaceId;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::store::workspaces::{self, Stamp};
use crate::store::{self, StoreError};

/// Statements on their way at once.
const AT_ONCE: usize = 2;

type Found = Result<Arc<HashMap<WorkspaceId, Stamp>>, Arc<StoreError>>;

/// Those who wait for a statement that has not begun.
#[derive(Debug)]
struct Gathering {
    ids: Vec<WorkspaceId>,
    read: Shared<BoxFuture<'static, Found>>,
}

/// Reads stamps.
#[derive(Clone, Debug)]
pub(crate) struct Stamps {
    pool: PgPool,
    gathering: Arc<Mutex<Option<Gathering>>>,
    turns: Arc<Semaphore>,
}

impl Stamps {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, gathering: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The stamp as it is now; none: there is no such workspace.
    pub(crate) async fn of(&self, id: WorkspaceId) -> Result<Option<Stamp>, Problem> {
        let found = self.join(id).await.map_err(store::shared)?;
        Ok(found.get(&id).copied())
    }

    fn join(&self, id: WorkspaceId) -> Shared<BoxFuture<'static, Found>> {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        let gathering = gathering.get_or_insert_with(|| {
            let read = self.clone().read();
            Gathering { ids: Vec::new(), read: read.boxed().shared() }
        });
        gathering.ids.push(id);
        gathering.read.clone()
    }

    /// Whoever of those who wait is polled drives it; the rest may hang up.
    async fn read(self) -> Found {
        let turn = self.turns.acquire().await;
        let gathered = self.gathering.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ids = gathered.map(|gathering| gathering.ids).unwrap_or_default();
        let read = async {
            let mut conn = self.pool.acquire().await?;
            workspaces::stamps(&mut conn, &ids).await
        };
        let found = read.await;
        drop(turn);
        Ok(Arc::new(found.map_err(Arc::new)?.into_iter().collect()))
    }
}
