//! All SQL of the service.

pub(crate) mod executions;
pub(crate) mod workspaces;

/// The channel that wakes the jobs; it carries the instance.
pub(crate) const CHANNEL: &str = "berth_automations";

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
