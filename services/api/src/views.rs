//! Workspaces as serialised JSON: most reads are of workspaces that have not changed since the last read.
//!
//! Each read asks the database for the current stamps of its rows, and takes from here the JSON that has that stamp. So nothing that is sent
//! is older than the database at the time of the read, whichever process changed it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use berth_ids::WorkspaceId;
use sqlx::PgConnection;

use crate::domain::authorize::WorkspaceScope;
use crate::domain::workspace::Workspace;
use crate::http::etag::ETag;
use crate::store::StoreError;
use crate::store::workspaces::{self, Stamp};

/// Workspaces kept at most; each takes about a kilobyte.
const KEPT: usize = 16_384;

/// A workspace as it is sent.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) scope: WorkspaceScope,
    pub(crate) etag: ETag,
    pub(crate) json: Bytes,
    stamp: Stamp,
}

/// The views of late.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<HashMap<WorkspaceId, Arc<View>>>);

impl Views {
    /// Those of `stamps` that are cached with that stamp, in this order.
    pub(crate) fn get(&self, wanted: &[(WorkspaceId, Stamp)]) -> Vec<Option<Arc<View>>> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |(id, stamp): &(WorkspaceId, Stamp)| views.get(id).filter(|view| view.stamp == *stamp).cloned();
        wanted.iter().map(get).collect()
    }

    fn put(&self, id: WorkspaceId, view: Arc<View>) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() >= KEPT {
            // Any half of them: what is still in demand is back at once.
            let mut keep = false;
            views.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        views.insert(id, view);
    }

    /// The views of these workspaces, in this order, without those that were deleted since their stamps were read.
    pub(crate) async fn load(
        &self,
        conn: &mut PgConnection,
        wanted: &[(WorkspaceId, Stamp)],
    ) -> Result<Vec<Arc<View>>, StoreError> {
        let mut found = self.get(wanted);
        let missing: Vec<WorkspaceId> =
            wanted.iter().zip(&found).filter(|(_, view)| view.is_none()).map(|((id, _), _)| *id).collect();
        if !missing.is_empty() {
            let mut read = HashMap::with_capacity(missing.len());
            for (workspace, stamp) in workspaces::find_stamped(conn, &missing).await? {
                let id = workspace.id;
                let view = Arc::new(view(&workspace, stamp));
                self.put(id, Arc::clone(&view));
                read.insert(id, view);
            }
            for ((id, _), place) in wanted.iter().zip(&mut found) {
                if place.is_none() {
                    *place = read.get(id).cloned();
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

fn view(workspace: &Workspace, stamp: Stamp) -> View {
    let json = serde_json::to_vec(&workspace.public()).unwrap_or_else(|error| {
        tracing::error!(workspace = %workspace.id, %error, "a workspace could not be written as JSON");
        b"null".to_vec()
    });
    View { scope: workspace.scope(), etag: ETag::of_workspace(workspace), json: json.into(), stamp }
}
