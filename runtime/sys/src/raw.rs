//! Turning the return values of raw system calls into results.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// The value of a system call, or its error number.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long, Errno> {
    if ret < 0 { Err(last()) } else { Ok(ret) }
}

/// The same for wrappers that return an int.
pub(crate) fn check_int(ret: libc::c_int) -> Result<libc::c_int, Errno> {
    if ret < 0 { Err(last()) } else { Ok(ret) }
}

/// The error number of the last call.
pub(crate) fn last() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// A descriptor that the kernel just made for us.
pub(crate) fn owned(value: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(value).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel returned this descriptor from a creating call, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
