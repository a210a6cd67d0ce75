//! An OCI runtime: create, start, enter and delete containers.

pub mod cgroup;
pub mod cli;
pub mod container;
mod embed;
mod error;
mod files;
mod hooks;
mod log;
mod process;
mod rootfs;
pub mod seccomp;
mod socket;
pub mod spec;
mod time;
mod timeline;

pub use embed::{Container, ContainerBuilder, ContainerState, Exec, Executing, Executor, Running, Runtime};
pub use error::{Code, Error, Phase, Result};
