//! Namespace bits, unshare and setns.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::check_int;

/// `CLONE_NEWTIME` (by unshare only; clone3 takes it but offsets would come too late).
pub const TIME: u64 = 0x80;
/// `CLONE_NEWNS`.
pub const MOUNT: u64 = 0x2_0000;
/// `CLONE_NEWCGROUP`.
pub const CGROUP: u64 = 0x200_0000;
/// `CLONE_NEWUTS`.
pub const UTS: u64 = 0x400_0000;
/// `CLONE_NEWIPC`.
pub const IPC: u64 = 0x800_0000;
/// `CLONE_NEWUSER`.
pub const USER: u64 = 0x1000_0000;
/// `CLONE_NEWPID`.
pub const PID: u64 = 0x2000_0000;
/// `CLONE_NEWNET`.
pub const NETWORK: u64 = 0x4000_0000;

/// `NS_GET_PARENT` of linux/nsfs.h.
const GET_PARENT: libc::Ioctl = 0xb702;

const ALL: u64 = TIME | MOUNT | CGROUP | UTS | IPC | USER | PID | NETWORK;

/// Moves the caller (for PID and time: its future children) to new namespaces.
///
/// # Errors
/// `EINVAL` for bits that are not namespaces, otherwise what unshare(2) reports.
pub fn unshare(flags: u64) -> Result<(), Errno> {
    if flags & !ALL != 0 {
        return Err(Errno::INVAL);
    }
    let flags = libc::c_int::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: namespace bits never touch memory or descriptors (CLONE_FILES was refused above).
    check_int(unsafe { libc::unshare(flags) }).map(drop)
}

/// Joins the namespace behind `fd` (a namespace file, or a pidfd with several bits).
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    let flags = libc::c_int::try_from(flags & ALL).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open for the time of the call; memory is not touched.
    check_int(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// The namespace around a PID or user namespace.
///
/// # Errors
/// `EPERM` when that is outside of the caller's own, `EINVAL` for a namespace of another kind.
pub fn parent(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the descriptor is open for the time of the call, and the call takes no argument.
    let fd = check_int(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_PARENT) })?;
    // SAFETY: the kernel has just opened the descriptor for this caller, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
