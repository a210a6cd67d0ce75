//! The audit log: a row in the transaction of each change.

use berth_api_types::internal::AuditEvent;
use berth_api_types::public::{AuditEntry, AuditResult};
use berth_authz::{Authorized, Principal};
use berth_clock::{Clock, Entropy};
use berth_ids::{AuditId, UserId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::authorize::{Installation, ReadAudit};
use crate::http::caller::Caller;

/// What was done, by whom, from where.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    actor_id: Option<UserId>,
    actor: String,
    credential: String,
    caller: Caller,
    action: &'a str,
    target_type: &'a str,
    target_id: Option<Uuid>,
    target: String,
    result: AuditResult,
    detail: Option<serde_json::Value>,
}

impl<'a> Record<'a> {
    fn new(actor: String, credential: String, caller: Caller, action: &'a str) -> Self {
        Self {
            actor_id: None,
            actor,
            credential,
            caller,
            action,
            target_type: "",
            target_id: None,
            target: String::new(),
            result: AuditResult::Done,
            detail: None,
        }
    }

    /// Somebody who is signed in did it.
    #[must_use]
    pub(crate) fn by(principal: &Principal, caller: &Caller, action: &'a str) -> Self {
        Self::new(principal.email.clone(), principal.credential.to_string(), caller.clone(), action)
            .actor_is(principal.user_id)
    }

    /// Nobody was signed in: logins, the set-up. `actor` is whom they claimed to be.
    #[must_use]
    pub(crate) fn anonymous(actor: &str, caller: &Caller, action: &'a str) -> Self {
        Self::new(actor.chars().take(254).collect(), "none".to_owned(), caller.clone(), action)
    }

    /// The service did it by itself.
    #[must_use]
    pub(crate) fn system(job: &str, action: &'a str) -> Self {
        Self::new(job.to_owned(), "system".to_owned(), Caller::default(), action)
    }

    /// What it was done to.
    #[must_use]
    pub(crate) fn on(mut self, kind: &'a str, id: Uuid, name: impl Into<String>) -> Self {
        self.target_type = kind;
        self.target_id = Some(id);
        self.target = name.into();
        self
    }

    /// Whose account it was.
    #[must_use]
    pub(crate) const fn actor_is(mut self, user: UserId) -> Self {
        self.actor_id = Some(user);
        self
    }

    /// What changed; never a secret.
    #[must_use]
    pub(crate) fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }

    /// How it ended, when not well.
    #[must_use]
    pub(crate) const fn result(mut self, result: AuditResult) -> Self {
        self.result = result;
        self
    }
}

const fn result_name(result: AuditResult) -> &'static str {
    match result {
        AuditResult::Done => "done",
        AuditResult::Denied => "denied",
        AuditResult::Failed => "failed",
    }
}

/// A row that is about to be written: a record with its id and time.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    id: AuditId,
    at: DateTime<Utc>,
    record: Record<'a>,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl<'a> Entry<'a> {
    /// The record, now.
    #[must_use]
    pub(crate) fn new(clock: &dyn Clock, entropy: &dyn Entropy, record: Record<'a>) -> Self {
        Self { id: AuditId::new(clock, entropy), at: clock.now(), record }
    }

    /// Binds `$1` to `$13`.
    pub(crate) fn bind<'q>(self, query: Query<'q>) -> Query<'q>
    where
        'a: 'q,
    {
        let record = self.record;
        query
            .bind(self.id)
            .bind(self.at)
            .bind(record.actor_id)
            .bind(record.actor)
            .bind(record.credential)
            .bind(record.action)
            .bind(record.target_type)
            .bind(record.target_id)
            .bind(record.target)
            .bind(record.caller.address)
            .bind(record.caller.user_agent)
            .bind(result_name(record.result))
            .bind(record.detail)
    }
}

/// A change and its audit row in one statement: one round trip, no transaction around it. The change is a statement with `RETURNING`; `$1` to
/// `$13` belong to the row ([`Entry::bind`]). If the change touches no row, nothing is written. Further common table expressions may refer to
/// it as `changed`.
macro_rules! audited {
    ($change:literal, $more:literal, $returns:literal) => {
        concat!(
            "WITH changed AS (",
            $change,
            "), logged AS (
                 INSERT INTO api.audit (id, at, actor_id, actor, credential, action, target_type, target_id, target, address, user_agent, result, detail)
                 SELECT $1::uuid, $2::timestamptz, $3::uuid, $4::text, $5::text, $6::text, $7::text, $8::uuid, $9::text, $10::text, $11::text,
                     $12::text, $13::jsonb FROM changed
             )",
            $more,
            " SELECT ",
            $returns,
            " FROM changed"
        )
    };
}
pub(crate) use audited;

/// Writes a row.
///
/// # Errors
/// The database refuses; the change that it is about must then not happen either.
pub(crate) async fn write(conn: &mut PgConnection, entry: Entry<'_>) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO api.audit (id, at, actor_id, actor, credential, action, target_type, target_id, target, address, user_agent, result, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    );
    entry.bind(query).execute(conn).await?;
    Ok(())
}

/// Writes the row of what another service did; once, however often the event is delivered. The id is derived from the event's time and its
/// number in the outbox, so that the row is ordered correctly and a second one conflicts with the first.
///
/// # Errors
/// The database.
pub(crate) async fn write_reported(conn: &mut PgConnection, event: &AuditEvent, number: i64) -> Result<(), StoreError> {
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&number.to_be_bytes());
    let millis = u64::try_from(event.at.timestamp_millis()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid();
    sqlx::query(
        "INSERT INTO api.audit (id, at, actor_id, actor, credential, action, target_type, target_id, target, result)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'done') ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(event.at)
    .bind(event.actor_id)
    .bind(&event.actor)
    .bind(&event.credential)
    .bind(&event.action)
    .bind(&event.target_type)
    .bind(event.target_id)
    .bind(&event.target)
    .execute(conn)
    .await?;
    Ok(())
}

/// Which rows are wanted; absent fields do not filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Exactly this action.
    pub action: Option<String>,
    /// By this user.
    pub actor_id: Option<UserId>,
    /// On this thing.
    pub target_id: Option<Uuid>,
    /// Not before.
    pub since: Option<DateTime<Utc>>,
    /// Before.
    pub until: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: AuditId,
    at: DateTime<Utc>,
    actor_id: Option<UserId>,
    actor: String,
    credential: String,
    action: String,
    target_type: String,
    target_id: Option<Uuid>,
    target: String,
    address: String,
    user_agent: String,
    result: String,
    detail: Option<serde_json::Value>,
}

/// Rows older than `before`, the newest first.
///
/// # Errors
/// The database, or a corrupt row.
pub(crate) async fn list(
    conn: &mut PgConnection,
    _right: &Authorized<Installation, ReadAudit>,
    filter: &Filter,
    before: Option<AuditId>,
    limit: i64,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, at, actor_id, actor, credential, action, target_type, target_id, target, address, user_agent, result, detail
         FROM api.audit
         WHERE ($1::uuid IS NULL OR id < $1) AND ($2::text IS NULL OR action = $2) AND ($3::uuid IS NULL OR actor_id = $3)
           AND ($4::uuid IS NULL OR target_id = $4) AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
         ORDER BY id DESC LIMIT $7",
    )
    .bind(before)
    .bind(&filter.action)
    .bind(filter.actor_id)
    .bind(filter.target_id)
    .bind(filter.since)
    .bind(filter.until)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(entry).collect()
}

fn entry(row: Row) -> Result<AuditEntry, StoreError> {
    let result = match row.result.as_str() {
        "done" => AuditResult::Done,
        "denied" => AuditResult::Denied,
        "failed" => AuditResult::Failed,
        _ => {
            let id = row.id.to_string();
            return Err(StoreError::Corrupt { table: "api.audit", column: "result", id, value: row.result });
        }
    };
    Ok(AuditEntry {
        id: row.id,
        at: row.at,
        actor_id: row.actor_id,
        actor: row.actor,
        credential: row.credential,
        action: row.action,
        target_type: row.target_type,
        target_id: row.target_id.map(|id| id.to_string()),
        target: row.target,
        address: row.address,
        user_agent: row.user_agent,
        result,
        detail: row.detail,
    })
}
