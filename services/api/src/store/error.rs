//! What can go wrong in the database, and which of it clients may know.

use std::sync::Arc;

use berth_http::Problem;

/// A uniqueness rule that a change would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    /// `workspaces_owner_name_key`.
    #[error("you have another workspace with this name: choose another name")]
    WorkspaceName,
    /// `users_email_key`.
    #[error("there is an account with this address already")]
    Email,
    /// `members_pkey`.
    #[error("they are a member already: change their role instead")]
    Member,
    /// `instances_live_key`.
    #[error("the workspace is running already")]
    Running,
}

impl Conflict {
    /// The one place that maps constraint names.
    fn of_constraint(name: &str) -> Option<Self> {
        match name {
            "workspaces_owner_name_key" => Some(Self::WorkspaceName),
            "users_email_key" => Some(Self::Email),
            "members_pkey" => Some(Self::Member),
            "instances_live_key" => Some(Self::Running),
            _ => None,
        }
    }

    /// Stable code of the problem.
    #[must_use]
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::WorkspaceName => "name_taken",
            Self::Email => "email_taken",
            Self::Member => "already_member",
            Self::Running => "already_running",
        }
    }
}

/// Why a store function failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A rule of the data forbids it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A row holds what our code never writes.
    #[error("the row {id} of {table} has a wrong value in {column}: {value:?}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Its key.
        id: String,
        /// What is there.
        value: String,
    },
    /// The database failed or refused.
    #[error("the database could not do it")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let conflict = error.as_database_error().and_then(|error| error.constraint()).and_then(Conflict::of_constraint);
        conflict.map_or(Self::Database(error), Self::Conflict)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        shared(Arc::new(error))
    }
}

/// A copy of the error for each of those who asked together.
pub(crate) fn shared(error: Arc<StoreError>) -> Problem {
    match &*error {
        StoreError::Conflict(conflict) => Problem::conflict(conflict.code(), conflict.to_string()),
        StoreError::Database(cause) if out_of_reach(cause) => {
            Problem::unavailable("the database cannot be reached; try again").with_source(error)
        }
        StoreError::Database(cause) if not_text(cause) => Problem::unprocessable(
            "invalid_text",
            "a text of the request holds a NUL character (\\u0000): leave it out",
        ),
        StoreError::Corrupt { .. } | StoreError::Database(_) => Problem::internal(error),
    }
}

/// A value of the request that Postgres keeps neither as text nor in JSON: `character_not_in_repertoire`, `untranslatable_character`.
fn not_text(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(&*code, "22021" | "22P05"))
}

/// The database is down, starting, stopping or full of connections: nothing is wrong with the request.
fn out_of_reach(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // Classes of SQLSTATE: connection exception, insufficient resources, operator intervention.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}
