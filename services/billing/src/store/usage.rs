//! Reading usage. Every query takes a [`Scope`]: what the caller may see.

use berth_authz::Principal;
use berth_ids::{InstanceId, OrganizationId, UsageRecordId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// What a caller may see: their own, and all of the organizations they own; an administrator sees everything.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    everything: bool,
    user: UserId,
    organizations: Vec<Uuid>,
}

impl Scope {
    pub(crate) fn of(principal: &Principal) -> Self {
        Self {
            everything: principal.admin,
            user: principal.user_id,
            organizations: principal
                .organizations
                .iter()
                .map(|membership| membership.id)
                .filter(|id| principal.owns(*id))
                .map(|id| id.as_uuid())
                .collect(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) to: Option<DateTime<Utc>>,
    pub(crate) repository: Option<String>,
    pub(crate) user: Option<UserId>,
    pub(crate) organization: Option<OrganizationId>,
    pub(crate) class: Option<String>,
    /// The intervals of running instances are counted up to here.
    pub(crate) as_of: DateTime<Utc>,
}

/// A record as it is stored.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Row {
    pub(crate) id: UsageRecordId,
    pub(crate) instance_id: InstanceId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) workspace_name: String,
    pub(crate) owner_id: UserId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) repository: String,
    pub(crate) class: String,
    pub(crate) credits_per_hour: Option<Decimal>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) stopped_at: Option<DateTime<Utc>>,
}

/// Sums.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Sums {
    pub(crate) records: i64,
    pub(crate) duration_ms: i64,
    pub(crate) credits: Decimal,
    pub(crate) unpriced_records: i64,
}

/// The condition that a [`Scope`] and a [`Filter`] put on records; [`asked`] binds its parameters.
macro_rules! chosen {
    () => {
        "($1 OR owner_id = $2 OR organization_id = ANY($3))
           AND ($4::timestamptz IS NULL OR started_at >= $4 OR COALESCE(stopped_at, $10) > $4)
           AND started_at <= LEAST(COALESCE($5::timestamptz, $10), $10)
           AND ($5::timestamptz IS NULL OR started_at < $5)
           AND ($6::text IS NULL OR repository = $6)
           AND ($7::uuid IS NULL OR owner_id = $7)
           AND ($8::uuid IS NULL OR organization_id = $8)
           AND ($9::text IS NULL OR class = $9)"
    };
}

/// A query that begins with `$1` to `$10` of [`chosen`].
fn asked<'q, O>(sql: &'static str, scope: &'q Scope, filter: &'q Filter) -> QueryAs<'q, Postgres, O, PgArguments>
where
    O: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql)
        .bind(scope.everything)
        .bind(scope.user)
        .bind(&scope.organizations)
        .bind(filter.from)
        .bind(filter.to)
        .bind(&filter.repository)
        .bind(filter.user)
        .bind(filter.organization)
        .bind(&filter.class)
        .bind(filter.as_of)
}

/// A transaction whose reads all see the same snapshot, so that the sums are those of the records beside them.
pub(crate) async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Records that overlap the window, the newest first, after a position.
pub(crate) async fn page(
    conn: &mut PgConnection,
    scope: &Scope,
    filter: &Filter,
    after: Option<(DateTime<Utc>, UsageRecordId)>,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let (at, id) = after.unzip();
    let sql = concat!(
        "SELECT id, instance_id, workspace_id, workspace_name, owner_id, organization_id, repository, class, credits_per_hour,
                started_at, stopped_at
         FROM billing.usage_records
         WHERE ",
        chosen!(),
        " AND ($11::timestamptz IS NULL OR (started_at, id) < ($11, $12))
         ORDER BY started_at DESC, id DESC LIMIT $13"
    );
    asked(sql, scope, filter).bind(at).bind(id).bind(limit).fetch_all(conn).await
}

/// Sums over the same records, each clipped to the window as [`clip`](crate::domain::credits::clip) does it.
pub(crate) async fn sums(conn: &mut PgConnection, scope: &Scope, filter: &Filter) -> Result<Sums, sqlx::Error> {
    let sql = concat!(
        "WITH clipped AS (
           SELECT credits_per_hour,
             (extract(epoch FROM GREATEST(started_at, $4) - started_at) * 1000)::bigint AS before_ms,
             (extract(epoch FROM LEAST(COALESCE(stopped_at, $10), $5) - started_at) * 1000)::bigint AS until_ms
           FROM billing.usage_records
           WHERE ",
        chosen!(),
        ")
         SELECT count(*) AS records,
           COALESCE(sum(until_ms - before_ms), 0)::bigint AS duration_ms,
           COALESCE(sum(billing.credits(credits_per_hour, until_ms) - billing.credits(credits_per_hour, before_ms)), 0) AS credits,
           count(*) FILTER (WHERE credits_per_hour IS NULL) AS unpriced_records
         FROM clipped"
    );
    asked(sql, scope, filter).fetch_one(conn).await
}
