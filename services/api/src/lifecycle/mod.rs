//! What takes longer than a request: starting, stopping and deleting across ws-manager.
//!
//! The rows are written first; what remains to be done follows from them. The request does it at once, and the job `resume` does it for rows
//! whose request died in between. ws-manager's calls are idempotent by the instance's id, so doing it twice is harmless.

pub(crate) mod delete;
pub(crate) mod end;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod wait;
