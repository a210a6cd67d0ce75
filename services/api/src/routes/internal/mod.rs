//! Operations for other services, on another listener than the public API.

pub(super) mod authenticate;
pub(super) mod authorize;
pub(super) mod show_workspace;
