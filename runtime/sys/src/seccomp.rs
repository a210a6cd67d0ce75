//! seccomp(2): installing filters and asking what the kernel knows.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::raw::{check, owned};

/// One instruction of a classic BPF program (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a jump's condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `SECCOMP_FILTER_FLAG_TSYNC`.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`.
pub const FLAG_LOG: u32 = 2;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FLAG_SPEC_ALLOW: u32 = 4;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FLAG_NEW_LISTENER: u32 = 8;
/// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`.
pub const FLAG_TSYNC_ESRCH: u32 = 16;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

const SET_MODE_FILTER: libc::c_ulong = 1;

#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const SockFilter,
}

/// Installs a filter on the calling thread; with [`FLAG_NEW_LISTENER`] gives back its notify descriptor.
///
/// # Errors
/// `E2BIG` when the program has more than 65 535 instructions, otherwise what seccomp(2) reports.
pub fn install(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let fprog = SockFprog { len, filter: program.as_ptr() };
    // SAFETY: `fprog` and the instructions it points to outlive the call; the kernel copies them.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), &raw const fprog) };
    let value = check(ret)?;
    if flags & FLAG_NEW_LISTENER != 0 {
        return owned(value).map(Some);
    }
    // With TSYNC a positive value is the id of a thread that could not be synchronised.
    if value > 0 { Err(Errno::SRCH) } else { Ok(None) }
}

/// Whether the kernel knows a filter flag: a null program with a known flag fails by `EFAULT`, an unknown flag by `EINVAL`.
pub fn flag_available(flag: u32) -> bool {
    // SAFETY: a null program pointer is what makes the kernel refuse the call without installing anything.
    let ret = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flag), std::ptr::null::<libc::c_void>())
    };
    matches!(check(ret), Err(Errno::FAULT))
}
