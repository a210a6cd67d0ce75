//! `GET /api/v1/audit`.

use axum::extract::State;
use berth_api_types::public::{AuditEntry, Page};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Json, PageQuery, Problem, Query};
use berth_ids::UserId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::domain::authorize::{Installation, ReadAudit};
use crate::state::Api;
use crate::store;
use crate::store::audit::Filter;

/// Which entries are wanted.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
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
}

/// Who did what to what, from where, and with what result; the newest first. For administrators.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "list_audit", params(AuditQuery, PageQuery),
    responses((status = 200, body = Page<AuditEntry>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    Query(query): Query<AuditQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let right = Authorized::<Installation, ReadAudit>::check(&principal, Installation)?;
    let paging = page.of("audit", &query)?;
    let filter = Filter {
        action: query.action,
        actor_id: query.actor,
        target_id: query.target,
        since: query.since,
        until: query.until,
    };
    let mut conn = api.connection().await?;
    let mut items = store::audit::list(&mut conn, &right, &filter, paging.after, paging.one_more()).await?;
    let next_cursor = paging.cut(&mut items, |entry| entry.id);
    Ok(Json(Page { items, next_cursor }))
}
