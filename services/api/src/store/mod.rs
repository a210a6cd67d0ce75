//! All SQL of the service: functions on a connection or a transaction that take what was authorised.

pub(crate) mod audit;
pub(crate) mod error;
pub(crate) mod idempotency;
pub(crate) mod instances;
pub(crate) mod organizations;
pub(crate) mod sessions;
pub(crate) mod setup;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod workspaces;

pub(crate) use error::{Conflict, StoreError, shared};
