//! The container of a workspace: its OCI configuration and the files it is given.

pub mod config;
pub mod files;
pub mod mount_points;
pub mod seccomp;

pub use config::Limits;
