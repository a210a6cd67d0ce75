//! An OCI runtime: create, start, enter and delete containers.
//!
//! The library runs the `hull` program for each operation and holds handles of what came of it. It never copies the
//! calling process, keeps no state in it, changes nothing of it, and prints nothing: it is meant for programs with many
//! threads or an async runtime.
//!
//! ```no_run
//! use hull::{Runtime, spec::Spec};
//!
//! let runtime = Runtime::new("/usr/local/bin/hull").root("/run/my-program/hull");
//! let spec: Spec = serde_json::from_str(&std::fs::read_to_string("config.json").unwrap()).unwrap();
//! let container = runtime.create("web", "/srv/bundles/web").spec(spec).create()?;
//! let running = container.start()?;
//! println!("process {} ended with {:?}", running.pid(), running.wait()?);
//! container.delete(false)?;
//! # Ok::<(), hull::Error>(())
//! ```
//!
//! | Module | |
//! |---|---|
//! | [`spec`] | the runtime specification as types |
//! | [`seccomp`] | its profiles, compiled for the kernel |
//!
//! Names that this page does not list are the program's own, and may change with any version.

mod cgroup;
#[doc(hidden)]
pub mod cli;
mod container;
mod embed;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod hooks;
mod log;
mod process;
mod rights;
mod rootfs;
pub mod seccomp;
mod socket;
pub mod spec;
mod time;
mod timeline;

pub use embed::{
    Container, ContainerBuilder, ContainerState, Exec, ExecSession, Executing, Executor, Running, Runtime, SessionExec,
    SessionProcess,
};
pub use error::{Code, Error, Phase, Result};
/// What [`Error::errno`] gives.
pub use rustix::io::Errno;
