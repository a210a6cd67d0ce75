//! Pages of workspaces as they are sent. A page that many ask for at the same time is read once.
//!
//! Dashboards and scripts ask for the first page of their user's workspaces again and again; see [`berth_service::Together`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use berth_http::Paging;
use berth_ids::{UserId, WorkspaceId};
use berth_service::Together;
use sqlx::{PgConnection, PgPool};

use crate::store::StoreError;
use crate::store::workspaces::{self, ListFilter, ListScope};
use crate::views::{View, Views};

/// Reads of the same page begin this far apart: about as long as one read takes.
const SPACING: Duration = Duration::from_millis(3);

type Answer = Result<Bytes, Arc<StoreError>>;

/// Reads pages.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    pool: PgPool,
    views: Arc<Views>,
    own: Together<(UserId, Paging<WorkspaceId>), Answer>,
}

impl Lists {
    pub(crate) fn new(pool: PgPool, views: Arc<Views>) -> Self {
        Self { pool, views, own: Together::new(SPACING) }
    }

    /// A `Page` of workspaces, as JSON.
    ///
    /// # Errors
    /// The database, or a corrupt row.
    pub(crate) async fn page(&self, scope: ListScope, filter: ListFilter, paging: Paging<WorkspaceId>) -> Answer {
        match scope {
            ListScope::Own(user) if filter.is_empty() => {
                let lists = self.clone();
                let ask = |(user, paging)| async move {
                    lists.read(&ListScope::Own(user), &ListFilter::default(), &paging).await.map_err(Arc::new)
                };
                self.own.ask((user, paging), ask).await
            }
            _ => self.read(&scope, &filter, &paging).await.map_err(Arc::new),
        }
    }

    async fn read(
        &self,
        scope: &ListScope,
        filter: &ListFilter,
        paging: &Paging<WorkspaceId>,
    ) -> Result<Bytes, StoreError> {
        let mut conn = self.pool.acquire().await?;
        page(&mut conn, &self.views, scope, filter, paging).await
    }
}

async fn page(
    conn: &mut PgConnection,
    views: &Views,
    scope: &ListScope,
    filter: &ListFilter,
    paging: &Paging<WorkspaceId>,
) -> Result<Bytes, StoreError> {
    let mut stamps = workspaces::list_stamps(conn, scope, filter, paging.after, paging.one_more()).await?;
    let next_cursor = paging.cut(&mut stamps, |(id, _)| *id);
    let views = views.load(conn, &stamps).await?;
    Ok(body(&views, next_cursor.as_deref()).into())
}

/// A `Page` of workspaces that are serialised already.
fn body(views: &[Arc<View>], next_cursor: Option<&str>) -> Vec<u8> {
    let size = views.iter().map(|view| view.json.len() + 1).sum::<usize>() + 128;
    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(b"{\"items\":[");
    for (place, view) in views.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&view.json);
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    match next_cursor {
        // Base64url: nothing in it needs escaping.
        Some(cursor) => {
            body.push(b'"');
            body.extend_from_slice(cursor.as_bytes());
            body.push(b'"');
        }
        None => body.extend_from_slice(b"null"),
    }
    body.push(b'}');
    body
}
