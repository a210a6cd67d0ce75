//! JSON shapes that cross a process border: the public API's, shared with the command line, and the internal ones that services exchange.

pub mod automations;
pub mod channel;
pub mod context;
pub mod git_credential;
pub mod internal;
pub mod public;
pub mod usage;
