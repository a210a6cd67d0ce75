//! ws-manager: the controller over `Workspace` resources, and the internal API over them.

mod cache;
pub mod config;
mod directory;
pub mod domain;

pub use config::{ClassConfig, Config, ConfigError, Policy};
