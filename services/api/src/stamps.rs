//! Stamps of single workspaces, read for many requests with one statement.
//!
//! Most requests show one workspace that has not changed; what they cost is the round trip to the database. Under load, requests gather for
//! the next statement: the busier the server, the fewer statements per request, while a quiet one asks at once. A statement that has begun
//! takes nobody in, so no stamp is older than the request for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_http::Problem;
use berth_ids::WorkspaceId;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use sqlx::PgPool;
use tokio::time::Instant;

use crate::store::workspaces::{self, Stamp};
use crate::store::{self, StoreError};

/// Statements begin this far apart: about as long as one takes.
const SPACING: Duration = Duration::from_millis(2);

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
    /// When the last statement began.
    last_began: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Stamps {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, gathering: Arc::default(), last_began: Arc::default() }
    }

    /// The current stamp; `None`: there is no such workspace.
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

    /// Whichever waiter is polled drives the statement; the others may hang up.
    async fn read(self) -> Found {
        let mut last_began = self.last_began.lock().await;
        if let Some(last_began) = *last_began {
            tokio::time::sleep_until(last_began + SPACING).await;
        }
        let gathered = self.gathering.lock().unwrap_or_else(PoisonError::into_inner).take();
        *last_began = Some(Instant::now());
        drop(last_began);
        let ids = gathered.map(|gathering| gathering.ids).unwrap_or_default();
        let read = async {
            let mut conn = self.pool.acquire().await?;
            workspaces::stamps(&mut conn, &ids).await
        };
        Ok(Arc::new(read.await.map_err(Arc::new)?.into_iter().collect()))
    }
}
