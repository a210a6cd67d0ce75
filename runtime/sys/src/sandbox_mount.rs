//! Id-mapping a detached mount, for a workspace's root file system.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::check;

/// `struct mount_attr` of linux/mount.h, first version.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Makes a detached, never attached mount show its owners through the map of a user namespace, and optionally read-only.
/// Device files on it are always inert.
///
/// # Errors
/// What mount_setattr(2) reports: `EINVAL` when the file system cannot be id-mapped or the mount is already mapped.
pub fn idmap_detached(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, read_only: bool) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP | MOUNT_ATTR_NODEV | if read_only { MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    // SAFETY: the path is a valid empty C string, `attr` outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
