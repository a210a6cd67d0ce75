//! `GET /api/v1/audit`.

use axum::extract::State;
use berth_api_types::public::{AuditEntry, Page};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Json, PageQuery, Problem, Query};
use berth_ids::UserId;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::domain::authorize::{Installation, ReadAudit};
use crate::paging::{one_more, page};
use crate::state::Api;
use crate::store;
use crate::store::audit::Filter;

/// Which entries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct AuditQuery {
    /// Exactly this action, for example `workspace.stop`.
    #[serde(default)]
    action: Option<String>,
    /// By this user.
    #[serde(default)]
    actor: Option<UserId>,
    /// On this thing.
    #[serde(default)]
    target: Option<Uuid>,
    /// Not before.
    #[serde(default)]
    since: Option<DateTime<Utc>>,
    /// Before.
    #[serde(default)]
    until: Option<DateTime<Utc>>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// Entries a page, 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Who did what to what, from where, and how it ended; the newest first. For administrators.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "list_audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let right = Authorized::<Installation, ReadAudit>::check(&principal, Installation)?;
    let paging = PageQuery { cursor: query.cursor, limit: query.limit };
    let limit = paging.limit()?;
    let filter = Filter {
        action: query.action,
        actor_id: query.actor,
        target_id: query.target,
        since: query.since,
        until: query.until,
    };
    let mut conn = api.connection().await?;
    let entries = store::audit::list(&mut conn, &right, &filter, paging.position()?, one_more(limit)).await?;
    Ok(Json(page(entries, limit, |entry| entry.id)))
}
