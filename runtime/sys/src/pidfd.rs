//! What pidfds tell beyond rustix' calls.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::check_int;

/// Answer of `PIDFD_GET_INFO` (Linux 6.13; exit status 6.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidfdInfo {
    /// Id in the caller's PID namespace.
    pub pid: i32,
    /// Parent's id.
    pub ppid: i32,
    /// Wait status, once the process has been reaped.
    pub exit_code: Option<i32>,
}

#[repr(C)]
#[derive(Default)]
struct Raw {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// Asks the kernel about the process behind a pidfd, also after it has been reaped.
///
/// # Errors
/// `ENOTTY` on kernels that do not know the question, `ESRCH` when the process is gone and no status was kept.
pub fn info(pidfd: BorrowedFd<'_>) -> Result<PidfdInfo, Errno> {
    const GET_INFO: libc::c_ulong = 0xC040_FF0B; // _IOWR(0xFF, 11, 64 bytes)
    const EXIT: u64 = 1 << 3;
    let mut raw = Raw { mask: 1 | EXIT, ..Raw::default() };
    // SAFETY: the request number encodes the struct's 64 bytes, which the kernel reads and writes.
    check_int(unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut raw) })?;
    Ok(PidfdInfo {
        pid: i32::try_from(raw.pid).map_err(|_| Errno::OVERFLOW)?,
        ppid: i32::try_from(raw.ppid).map_err(|_| Errno::OVERFLOW)?,
        exit_code: (raw.mask & EXIT != 0).then_some(raw.exit_code),
    })
}

const _: () = assert!(size_of::<Raw>() == 64);
