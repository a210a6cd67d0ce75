//! What other services ask.

pub(super) mod look_up_credential;
pub(super) mod resolve_context;
