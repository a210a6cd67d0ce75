//! The content of a workspace: git, run inside it.

pub mod devcontainer;
pub mod git;
mod run;

pub use run::{CheckoutError, Wishes, clean, run, set_aside, wishes};
