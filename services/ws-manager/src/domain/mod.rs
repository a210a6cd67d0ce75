//! The rules, pure: what the status of an instance is, and what has to be done about it. No cluster, no clock, no I/O.

pub mod actions;
pub mod binding;
pub mod failure;
pub mod happening;
pub mod instance;
pub mod pod;
pub mod retry;
pub mod status;
pub mod time;
pub mod timeouts;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;
