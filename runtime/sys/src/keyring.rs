//! Session keyrings.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::raw::check;

const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SETPERM: libc::c_long = 5;
const DESCRIBE: libc::c_long = 6;

/// Joins a new session keyring of that name and gives its id.
pub fn join_session(name: &CStr) -> Result<i64, Errno> {
    // SAFETY: the name is null-terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// Lets the user's other processes search the keyring, so that `exec` can join it.
pub fn allow_user_search(id: i64) -> Result<(), Errno> {
    const USER_SEARCH: u32 = 0x0008_0000;
    let mut text = [0u8; 256];
    // SAFETY: the buffer's length is passed, the kernel writes no further.
    let len = check(unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, id, text.as_mut_ptr(), text.len()) })?;
    let len = usize::try_from(len).unwrap_or(0).min(text.len());
    let text = std::str::from_utf8(text.get(..len).unwrap_or(&[])).map_err(|_| Errno::INVAL)?;
    // type;uid;gid;perm;description
    let perm = text.split(';').nth(3).and_then(|p| u32::from_str_radix(p, 16).ok()).ok_or(Errno::INVAL)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, id, libc::c_long::from(perm | USER_SEARCH)) }).map(drop)
}
