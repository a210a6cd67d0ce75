//! What other services ask.

pub(super) mod list_private_hosts;
pub(super) mod look_up_credential;
pub(super) mod resolve_context;
