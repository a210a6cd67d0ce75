//! Landlock rule sets.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, owned};

/// Version of the interface the kernel has.
pub fn abi() -> Result<u32, Errno> {
    // SAFETY: a null attribute of size 0 with this flag asks for the version.
    let ret = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) };
    u32::try_from(check(ret)?).map_err(|_| Errno::OVERFLOW)
}

/// Makes a rule set that handles these rights; zero fields that the kernel's version does not know are harmless.
pub fn create(handled_fs: u64, handled_net: u64, scoped: u64) -> Result<OwnedFd, Errno> {
    let attr: [u64; 3] = [handled_fs, handled_net, scoped];
    // SAFETY: three u64 in the order of struct landlock_ruleset_attr; zero tails are accepted by older kernels.
    let ret = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), size_of_val(&attr), 0u32) };
    owned(check(ret)?)
}

/// Allows `rights` beneath the file or directory `path`.
pub fn allow_path(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, rights: u64) -> Result<(), Errno> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    let attr = PathBeneath { allowed_access: rights, parent_fd: path.as_raw_fd() };
    // SAFETY: type 1 reads the packed struct, which outlives the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), 1 as libc::c_int, &raw const attr, 0u32)
    };
    check(ret).map(drop)
}

/// Allows `rights` on a TCP port.
pub fn allow_port(ruleset: BorrowedFd<'_>, port: u64, rights: u64) -> Result<(), Errno> {
    let attr: [u64; 2] = [rights, port];
    // SAFETY: type 2 reads two u64 in this order.
    let ret = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), 2 as libc::c_int, attr.as_ptr(), 0u32)
    };
    check(ret).map(drop)
}

/// Applies the rule set to the caller and its children, for ever.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) }).map(drop)
}
