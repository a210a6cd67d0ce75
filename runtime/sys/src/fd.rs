//! Descriptor ranges and descriptors handed over by number.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::raw::{check, check_int, owned};

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    const CLOEXEC: libc::c_ulong = 4;
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed, only flags change.
    let ret = unsafe {
        libc::syscall(libc::SYS_close_range, libc::c_ulong::from(first), libc::c_ulong::from(u32::MAX), CLOEXEC)
    };
    check(ret).map(drop)
}

/// Lets descriptor `fd` live through execve. `EBADF` when it is not open.
pub fn keep_over_exec(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: F_SETFD changes a flag of the descriptor and nothing else.
    check_int(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Whether a descriptor number is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only reads.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// A close-on-exec copy of a descriptor that the caller of the program passed by number.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: makes a new descriptor; the old one is only read.
    let ret = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    owned(check_int(ret)?.into())
}

/// Puts a copy of `from` at the number `to`, replacing what is open there; the copy lives through execve.
///
/// For the last steps before execve only: whoever owns number `to` afterwards owns another file.
pub fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    if from.as_raw_fd() == to {
        return keep_over_exec(to);
    }
    // SAFETY: dup2 is atomic; the caller is about to execute another program and owns all numbers.
    check_int(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Closes every descriptor from 3 on that is not in `keep`.
///
/// For a process that was just cloned and never returns to the frames that own the others: locks and directories of
/// its creator must not live on in it.
pub fn close_except(keep: &mut [RawFd]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut first = 3u32;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd.saturating_sub(1))?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: only descriptors change; who calls this owns the process' whole table (see above).
    let ret = unsafe { libc::syscall(libc::SYS_close_range, libc::c_ulong::from(first), libc::c_ulong::from(last), 0) };
    check(ret).map(drop)
}
