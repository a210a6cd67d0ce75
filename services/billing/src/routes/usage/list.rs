//! `GET /api/v1/usage`: intervals and their sums.

use axum::extract::State;
use berth_api_types::usage::{UsagePage, UsageTotals};
use berth_authz::Authenticated;
use berth_http::{Json, PageQuery, Problem, ProblemBody, ProblemResponse, Query};
use berth_ids::UsageRecordId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{UsageQuery, shown};
use crate::State as Service;
use crate::store::usage::{self, Scope};

/// Where a page begins, and the moment that all pages count up to.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Position {
    started_at: DateTime<Utc>,
    id: UsageRecordId,
    as_of: DateTime<Utc>,
}

/// List usage records, the newest first, each clipped to the window, with the sums over all of them. Members see their own, owners of an
/// organization all of it.
#[utoipa::path(
    get,
    path = "/api/v1/usage",
    operation_id = "list_usage",
    tag = "usage",
    params(UsageQuery, PageQuery),
    responses(
        (status = 200, description = "Usage.", body = UsagePage),
        (status = 400, description = "A filter that is not valid.", content_type = "application/problem+json", body = ProblemBody),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    Authenticated(principal): Authenticated,
    Query(query): Query<UsageQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<UsagePage>, Problem> {
    let paging = page.of::<Position>("usage", &query)?;
    let as_of = paging.after.map_or_else(|| state.clock.now(), |position| position.as_of);
    let filter = query.filter(principal.user_id, as_of)?;
    let scope = Scope::of(&principal);
    let after = paging.after.map(|position| (position.started_at, position.id));
    let mut transaction = usage::snapshot(&state.pool).await.map_err(Problem::internal)?;
    let mut rows =
        usage::page(&mut transaction, &scope, &filter, after, paging.one_more()).await.map_err(Problem::internal)?;
    let sums = usage::sums(&mut transaction, &scope, &filter).await.map_err(Problem::internal)?;
    drop(transaction);
    let position = |row: &usage::Row| Position { started_at: row.started_at, id: row.id, as_of: filter.as_of };
    let next_cursor = paging.cut(&mut rows, position);
    let totals = UsageTotals {
        records: sums.records,
        duration_ms: sums.duration_ms,
        credits: sums.credits.normalize().to_string(),
        unpriced_records: sums.unpriced_records,
        as_of: filter.as_of,
    };
    let items = rows.into_iter().filter_map(|row| shown(row, &filter)).collect();
    Ok(Json(UsagePage { items, totals, next_cursor }))
}
