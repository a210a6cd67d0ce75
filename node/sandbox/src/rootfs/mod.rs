//! The workspace's user namespace and the root file system mounted in it.
//!
//! Why a helper process, and why like this (each tried on Linux 6.18):
//!
//! * Layers and the disk keep the owners of the image (0, 1000, ...): they are shared between workspaces with different uid ranges. Each is
//!   therefore shown through an id-mapped clone of its mount, and the overlay is mounted *inside* the user namespace. Mounted from outside it
//!   comes up read-only, and an overlay cannot itself be id-mapped.
//! * A detached mount is refused as a layer inside a user namespace, so the clones are attached, in a mount namespace nobody else sees.
//! * setuid programs honour their bit only when the process is in the user namespace that mounted the overlay: the container must join this
//!   one by path; a fresh one with an equal map would not do.
//! * inotify and similar budgets are counted for the host user who *created* the namespace: the helper becomes the workspace's own first host
//!   uid before it unshares, so no workspace can exhaust another's.

mod helper;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use serde::{Deserialize, Serialize};

pub use helper::main;

use crate::message::{self, MessageError};

/// Most layers in one root file system.
pub const MAX_LAYERS: usize = 120;

/// What the helper shall build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// First host uid of the workspace's range; it becomes root inside.
    pub uid_base: u32,
    /// First host gid of the range.
    pub gid_base: u32,
    /// Length of both ranges, usually 65,536.
    pub id_count: u32,
    /// Read-only layers, the topmost first. At least one. Absolute paths of directories whose owners are container ids.
    pub layers: Vec<PathBuf>,
    /// Directory on the workspace's disk that holds `upper` and `work` (see [`Self::prepare_disk`]).
    pub disk: PathBuf,
    /// Name of the writable layer's directory in `disk`.
    pub upper: String,
    /// Name of overlay's work directory in `disk`.
    pub work: String,
}

impl Request {
    /// Makes the two directories on a new disk, owned by the container's root (uid 0 on the disk). Does nothing on a used one.
    pub fn prepare_disk(disk: &Path) -> io::Result<()> {
        for name in ["upper", "work"] {
            match std::fs::create_dir(disk.join(name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What the helper answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Response {
    /// With two descriptors: the mount, the user namespace.
    Built { elapsed_us: u64 },
    /// A step failed.
    Failed { step: String, errno: i32 },
}

/// A root file system that is mounted nowhere yet, and the user namespace it belongs to.
#[derive(Debug)]
pub struct Rootfs {
    /// The detached overlay mount.
    pub mount: OwnedFd,
    /// The user namespace. hull takes it by path: `/proc/<pid of the holder>/fd/<number>`.
    pub userns: OwnedFd,
    /// How long the helper took.
    pub elapsed: Duration,
}

/// The root file system could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The request cannot be right.
    #[error("a root file system needs 1 to {MAX_LAYERS} layers, {0} were given")]
    Layers(usize),
    /// The program does not run.
    #[error("the helper {} cannot be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Talking to the helper failed.
    #[error("the helper that mounts a workspace's root file system did not answer")]
    Message(#[source] MessageError),
    /// The helper took too long.
    #[error("the helper that mounts a workspace's root file system gave no answer in {0:?}: a disk below it hangs")]
    Timeout(Duration),
    /// A step failed in the helper.
    #[error("mounting the workspace's root file system failed: {step}")]
    Step {
        /// What it was doing, with the path.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The answer came without its descriptors.
    #[error("the helper that mounts a workspace's root file system passed no mount out")]
    NoDescriptors,
    /// The mount could not be attached.
    #[error("the workspace's root file system cannot be attached at {}", path.display())]
    Attach {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Longest time the helper may take: layers and disks are local.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Builds a root file system with the helper `program` (`berth-init`). Blocks for some milliseconds. The caller must be the host's root.
pub fn build(program: &Path, request: &Request) -> Result<Rootfs, RootfsError> {
    if request.layers.is_empty() || request.layers.len() > MAX_LAYERS {
        return Err(RootfsError::Layers(request.layers.len()));
    }
    let (ours, theirs) = message::pair().map_err(RootfsError::Message)?;
    message::send(&ours, request, &[]).map_err(RootfsError::Message)?;
    let mut child = Command::new(program)
        .arg("rootfs")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .spawn()
        .map_err(|source| RootfsError::Spawn { program: program.to_owned(), source })?;
    let answer = wait_readable(&ours).and_then(|()| message::receive::<Response>(&ours).map_err(RootfsError::Message));
    if answer.is_err() {
        // It may hang in a mount; nothing of it is needed any more.
        let _ = child.kill();
    }
    let _ = child.wait();
    let (response, fds) = answer?;
    match response {
        Response::Failed { step, errno } => {
            Err(RootfsError::Step { step, source: io::Error::from_raw_os_error(errno) })
        }
        Response::Built { elapsed_us } => {
            let mut fds = fds.into_iter();
            match (fds.next(), fds.next()) {
                (Some(mount), Some(userns)) => Ok(Rootfs { mount, userns, elapsed: Duration::from_micros(elapsed_us) }),
                _ => Err(RootfsError::NoDescriptors),
            }
        }
    }
}

fn wait_readable(socket: &OwnedFd) -> Result<(), RootfsError> {
    let timeout = Timespec { tv_sec: i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(RootfsError::Timeout(TIMEOUT)),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RootfsError::Message(error.into())),
        }
    }
}

impl Rootfs {
    /// Attaches the mount at `path` (an existing directory) in the caller's mount namespace. Unmount it with `MNT_DETACH` when the
    /// container is gone.
    pub fn attach(&self, path: &Path) -> Result<(), RootfsError> {
        move_mount(self.mount.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| RootfsError::Attach { path: path.to_owned(), source: errno.into() })
    }
}
