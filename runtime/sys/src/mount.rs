//! mount_setattr(2), which rustix lacks.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::check;

/// `MOUNT_ATTR_RDONLY`.
pub const ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field of the three that follow; clear it whenever one of them is set.
pub const ATTR_ATIME: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME` is the absence of the others.
pub const ATTR_RELATIME: u64 = 0x0;
/// `MOUNT_ATTR_NOATIME`.
pub const ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const ATTR_IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// `MS_UNBINDABLE` as propagation.
pub const UNBINDABLE: u64 = 1 << 17;
/// `MS_PRIVATE` as propagation.
pub const PRIVATE: u64 = 1 << 18;
/// `MS_SLAVE` as propagation.
pub const SLAVE: u64 = 1 << 19;
/// `MS_SHARED` as propagation.
pub const SHARED: u64 = 1 << 20;

/// Changes of one mount, or of a tree of them.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr<'a> {
    /// `ATTR_…` bits to set.
    pub set: u64,
    /// `ATTR_…` bits to clear, applied first.
    pub clear: u64,
    /// Propagation to give, 0 for none.
    pub propagation: u64,
    /// User namespace of [`ATTR_IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
    /// Whether the mounts below change too.
    pub recursive: bool,
}

/// Applies the changes to the mount at `path` below `dir`; an empty path means the mount that `dir` itself is.
pub fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, attr: &MountAttr<'_>) -> Result<(), Errno> {
    #[repr(C)]
    struct Raw {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let userns_fd = match attr.userns {
        Some(fd) => u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?,
        None => 0,
    };
    let raw = Raw { attr_set: attr.set, attr_clr: attr.clear, propagation: attr.propagation, userns_fd };
    let mut flags = 0;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if attr.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the struct and the path outlive the call, the size passed is the struct's.
    let ret = unsafe {
        libc::syscall(libc::SYS_mount_setattr, dir.as_raw_fd(), path.as_ptr(), flags, &raw const raw, size_of::<Raw>())
    };
    check(ret).map(drop)
}
