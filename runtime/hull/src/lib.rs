//! An OCI runtime: create, start, enter and delete containers.
//!
//! The library runs the `hull` program for each operation and holds handles of what came of it. It never copies the
//! calling process, keeps no state in it, changes nothing of it, and prints nothing: it is meant for programs with many
//! threads or an async runtime.
//!
//! ```no_run
//! use hull::Runtime;
//!
//! let runtime = Runtime::new("/usr/local/bin/hull").root("/run/my-program/hull");
//! let container = runtime.create("web", "/srv/bundles/web").create()?;
//! let running = container.start()?;          // a pidfd: async code waits for `running.pidfd()`
//! let status = running.wait()?;              // exit code, or 128 plus the signal
//! container.delete(false)?;
//! # Ok::<(), hull::Error>(())
//! ```
//!
//! # From several threads, and from async code
//!
//! Calls block while the program works, a few milliseconds; they may be made from any thread, at the same time. Only the
//! wait for a container's end is long, and that is a descriptor, which becomes readable:
//!
//! ```no_run
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! let runtime = hull::Runtime::new("/usr/local/bin/hull");
//! let running = std::thread::scope(|scope| {
//!     let start = |id: &str| runtime.create(id, format!("/srv/bundles/{id}")).create()?.start();
//!     ["web", "db"].map(|id| scope.spawn(move || start(id))).map(|thread| thread.join().unwrap())
//! });
//! let [web, db] = running;
//! let (web, db) = (web?, db?);
//! // An async runtime registers these descriptors in place of this call: tokio's `AsyncFd`, for example.
//! poll(&mut [PollFd::new(&web.pidfd(), PollFlags::IN), PollFd::new(&db.pidfd(), PollFlags::IN)], None).unwrap();
//! # Ok::<(), hull::Error>(())
//! ```
//!
//! # The end of a process, and errors
//!
//! Both are values: an exit status where the process has ended, and a code, the object, the error number and a hint where
//! something failed, be it in the container's own process:
//!
//! ```no_run
//! use hull::{Code, Runtime};
//!
//! let runtime = Runtime::new("/usr/local/bin/hull");
//! match runtime.create("web", "/srv/bundles/web").create().and_then(|container| container.start()?.wait()) {
//!     Ok(Some(status)) => println!("ended with {status}"),
//!     Ok(None) => println!("ended; its status went to another process"),
//!     Err(error) if error.code() == Code::MountSource => println!("{} is missing: {:?}", error.object(), error.errno()),
//!     Err(error) => println!("{error}"),
//! }
//! ```
//!
//! # Everything per container
//!
//! Nothing is taken from the calling process but what is given: streams are descriptors, the configuration may be a value,
//! paths are absolute or the caller's. Working directory, umask, environment and signal handlers stay as they are.
//!
//! ```no_run
//! use hull::{Runtime, spec::{Process, Root, Spec}};
//!
//! let (input, output) = (std::fs::File::open("in").unwrap(), std::fs::File::create("out").unwrap());
//! let spec = Spec {
//!     oci_version: "1.3.0".into(),
//!     root: Some(Root { path: "rootfs".into(), readonly: true }),
//!     process: Some(Process { args: vec!["/bin/sort".into()], cwd: "/".into(), ..Process::default() }),
//!     ..Spec::default()
//! };
//! let runtime = Runtime::new("/usr/local/bin/hull");
//! let sort = runtime.create("sort", "/srv/bundles/sort").spec(spec).stdin(input.into()).stdout(output.into());
//! sort.create()?.start()?.wait()?;
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
mod procfs;
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
///
/// ```
/// use hull::{Code, Errno, Error};
///
/// let error = Error::os(Code::MountSource, "/data", Errno::NOENT);
/// assert_eq!(error.errno().map(Errno::raw_os_error), Some(2));
/// ```
pub use rustix::io::Errno;
