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
