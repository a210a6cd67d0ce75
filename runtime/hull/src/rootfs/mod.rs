//! The container's root file system: mounts, devices, masks, and the change of root.

pub(crate) mod cgroupfs;
mod copyup;
pub(crate) mod devices;
pub(crate) mod mask;
pub(crate) mod mounts;
pub(crate) mod no_pivot;
pub(crate) mod options;
pub(crate) mod resolve;

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::{self as sysmount, MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{Code, Context, Error, Result};

/// The root directory before it is attached.
#[derive(Debug)]
pub(crate) enum RootSource {
    /// A detached clone of the mount (with what is mounted below).
    Tree(OwnedFd),
    /// A path the container's process opens itself.
    Path(String),
}

/// Opens the root directory; `early` says whether this process may clone mounts.
pub(crate) fn open_root(path: &str, early: bool) -> Result<RootSource> {
    if early {
        match clone_root(path) {
            Ok(tree) => return Ok(RootSource::Tree(tree)),
            Err(error) if error.errno() == Some(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(RootSource::Path(path.to_owned()))
}

fn clone_root(path: &str) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, path, flags).context(Code::RootOpen, path)?;
    let stat = rustix::fs::fstat(&tree).context(Code::RootOpen, path)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Error::os(Code::RootOpen, path, Errno::NOTDIR));
    }
    Ok(tree)
}

/// Attaches the root in the caller's new mount namespace and returns a handle of it.
///
/// The place is "/" itself, on top of everything: that needs no rights on the directories that lead to the root, and pivot_root takes it from
/// there. Hooks that look at the mounts by the root's path need it at that path, `visible_at`. The parent mount must not be shared in either
/// case.
pub(crate) fn attach_root(
    source: &RootSource,
    visible_at: Option<&str>,
    propagation: u64,
    recursive: bool,
) -> Result<OwnedFd> {
    let host = MountAttr { propagation: sysmount::SLAVE, recursive: true, ..MountAttr::default() };
    mount_setattr(CWD, c"/", &host).doing(Code::Pivot, "/", "making the host's mounts slaves")?;
    let parent = MountAttr { propagation: sysmount::PRIVATE, ..MountAttr::default() };
    mount_setattr(CWD, c"/", &parent).doing(Code::Pivot, "/", "making the parent mount private")?;
    let opened;
    let tree = match source {
        RootSource::Tree(tree) => tree,
        RootSource::Path(path) => {
            opened = clone_root(path)?;
            &opened
        }
    };
    let attr = MountAttr { propagation, recursive, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), c"", &attr).doing(Code::Pivot, "/", "setting the root's propagation")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = match visible_at.map(|path| (path, rustix::fs::open(path, flags, Mode::empty()))) {
        Some((_, Ok(place))) => Some(place),
        // Not possible with the rights of the container's user: most hooks do not look there.
        None | Some((_, Err(Errno::ACCESS))) => None,
        Some((path, Err(e))) => return Err(Error::os(Code::RootOpen, path, e)),
    };
    match &place {
        Some(place) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(tree, "", place, "", flags)
        }
        None => rustix::mount::move_mount(tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH),
    }
    .doing(Code::Pivot, "/", "attaching the root")?;
    rustix::fs::openat(tree, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(
        Code::Pivot,
        "/",
        "opening the root",
    )
}

/// Makes `root` the root directory and detaches the old one.
pub(crate) fn pivot(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root).doing(Code::Pivot, "/", "entering the root")?;
    rustix::process::pivot_root(".", ".").doing(Code::Pivot, "/", "pivot_root")?;
    // The old root is now on top of the new one at "/"; "." is still the new one.
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(Code::Pivot, "/", "detaching the old root")?;
    rustix::process::chdir("/").doing(Code::Pivot, "/", "entering the new root")
}

/// Makes `root` the root directory of this process alone.
pub(crate) fn enter(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(root).doing(Code::Pivot, "/", "entering the root")?;
    rustix::process::chroot(".").doing(Code::Pivot, "/", "chroot")?;
    rustix::process::chdir("/").doing(Code::Pivot, "/", "entering the new root")
}

/// Makes a mount read-only by its handle.
pub(crate) fn make_read_only(mount: impl AsFd, name: &str) -> Result<()> {
    let attr = MountAttr { set: sysmount::ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), c"", &attr).context(Code::MountAttr, name)
}
