//! `/api/v1/git-credentials`.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod list;
