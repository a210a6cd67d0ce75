//! Git hosts: context URLs, refs, git credentials.
//!
//! [`domain::context`] understands what a user pastes without a call; [`remote`] asks the host for its refs natively
//! (git's smart HTTP protocol) through the guarded outbound client; [`domain::resolve`] puts the two together.

pub mod domain;
pub mod remote;
