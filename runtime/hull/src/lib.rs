//! An OCI runtime: create, start, enter and delete containers.

pub mod cgroup;
mod error;
mod files;
mod rootfs;
pub mod seccomp;
pub mod spec;
mod time;

pub use error::{Code, Error, Phase, Result};
