//! All SQL of the service.

pub(crate) mod executions;
pub(crate) mod workspaces;

/// The channel that wakes the jobs; it carries the instance.
pub(crate) const CHANNEL: &str = "berth_automations";
/// The channel that tells that a run moved on, or ended, or that a file was read.
pub(crate) const RUNS_CHANNEL: &str = "berth_automation_runs";

/// Advisory lock of the leader.
const LEADER_LOCK: i64 = 0x6265_7274_6861;

/// Takes the leader's lock for as long as this connection lives; false: another has it.
pub(crate) async fn try_lead(leader: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(leader).await
}

/// A row that should not be there: the database was changed by hand, or by a newer version.
#[derive(Debug, thiserror::Error)]
#[error("{column} of {table} {row} holds {value:?}, which is not understood")]
pub(crate) struct CorruptRow {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) row: String,
    pub(crate) value: String,
}

impl From<CorruptRow> for sqlx::Error {
    fn from(row: CorruptRow) -> Self {
        Self::Decode(row.into())
    }
}
