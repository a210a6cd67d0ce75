//! `GET /api/v1/usage.csv`: the same as CSV, streamed.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use berth_authz::Authenticated;
use berth_http::{Problem, ProblemBody, ProblemResponse, Query};
use berth_ids::UsageRecordId;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};

use super::{UsageQuery, shown};
use crate::State as Service;
use crate::domain::csv::line;
use crate::store::usage::{self, Filter, Scope};

/// Records read at once.
const BATCH: i64 = 1000;

const COLUMNS: [&str; 13] = [
    "started_at",
    "stopped_at",
    "counted_from",
    "counted_to",
    "workspace_name",
    "workspace_id",
    "instance_id",
    "user_id",
    "organization_id",
    "repository",
    "class",
    "duration_ms",
    "credits",
];

/// Export usage records as CSV (RFC 4180). Cells that a spreadsheet would take for formulas begin with an apostrophe.
#[utoipa::path(
    get,
    path = "/api/v1/usage.csv",
    operation_id = "export_usage",
    tag = "usage",
    params(UsageQuery),
    responses(
        (status = 200, description = "Usage.", content_type = "text/csv", body = String),
        (status = 400, description = "A filter that is not valid.", content_type = "application/problem+json", body = ProblemBody),
        (status = 401, description = "Not signed in.", content_type = "application/problem+json", body = ProblemBody),
        (status = "default", response = ProblemResponse),
    ),
)]
pub(crate) async fn handler(
    State(state): State<Service>,
    Authenticated(principal): Authenticated,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    let filter = query.filter(principal.user_id, state.clock.now())?;
    let scope = Scope::of(&principal);
    let export = Export { state, scope, filter, next: Next::Head };
    // The first batch is read before the answer begins: if the database is down, the answer is a problem and not half a file.
    let (head, export) = export.step().await.map_err(Problem::internal)?;
    let rest = futures::stream::try_unfold(export, |export| async move {
        match export {
            Some(export) => export.step().await.map(Some).map_err(std::io::Error::other),
            None => Ok(None),
        }
    });
    let body = futures::StreamExt::chain(futures::stream::iter([Ok(head)]), rest);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

enum Next {
    Head,
    After(DateTime<Utc>, UsageRecordId),
}

struct Export {
    state: Service,
    scope: Scope,
    filter: Filter,
    next: Next,
}

impl Export {
    /// The next lines, and what follows them.
    async fn step(mut self) -> Result<(Bytes, Option<Self>), sqlx::Error> {
        let mut text = String::new();
        let after = match self.next {
            Next::Head => {
                line(&mut text, &COLUMNS);
                None
            }
            Next::After(at, id) => Some((at, id)),
        };
        let mut conn = self.state.pool.acquire().await?;
        let rows = usage::page(&mut conn, &self.scope, &self.filter, after, BATCH).await?;
        drop(conn);
        let last = rows.last().map(|row| (row.started_at, row.id));
        let full = i64::try_from(rows.len()).is_ok_and(|count| count >= BATCH);
        for record in rows.into_iter().filter_map(|row| shown(row, &self.filter)) {
            let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
            line(
                &mut text,
                &[
                    &time(record.started_at),
                    &record.stopped_at.map(time).unwrap_or_default(),
                    &time(record.counted_from),
                    &time(record.counted_to),
                    &record.workspace_name,
                    &record.workspace_id.to_string(),
                    &record.instance_id.to_string(),
                    &record.user_id.to_string(),
                    &record.organization_id.to_string(),
                    &record.repository,
                    &record.class,
                    &record.duration_ms.to_string(),
                    &record.credits.unwrap_or_default(),
                ],
            );
        }
        let following = match last {
            Some((at, id)) if full => {
                self.next = Next::After(at, id);
                Some(self)
            }
            _ => None,
        };
        Ok((Bytes::from(text), following))
    }
}
