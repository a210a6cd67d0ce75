//! Signal masks, dispositions and signalfd.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, check_int, owned};

/// Number of the last signal.
pub const LAST: i32 = 64;

fn full_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, all-zero is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes the set it is given.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

/// Blocks all signals and gives a descriptor that yields them (for the loop of a foreground command).
pub fn block_all_into_fd() -> Result<OwnedFd, Errno> {
    let set = full_set();
    // SAFETY: the set outlives the call.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: the set outlives the call.
    let fd = check_int(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    owned(fd.into())
}

/// Unblocks all signals.
pub fn unblock_all() -> Result<(), Errno> {
    // SAFETY: sigset_t is plain data, all-zero is the empty set.
    let set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }).map(drop)
}

/// Gives every signal that is ignored its default disposition again: ignored ones would stay so over execve.
pub fn reset_dispositions() {
    for signal in 1..=LAST {
        // SAFETY: SIG_DFL needs no handler code; signals that cannot be changed fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Gives one signal its default disposition.
pub fn reset(signal: i32) {
    // SAFETY: as above.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Number of the signal in one record read from a signalfd (128 bytes).
pub fn number_of(record: &[u8; 128]) -> i32 {
    let [a, b, c, d, ..] = *record;
    i32::from_ne_bytes([a, b, c, d])
}

/// Sends a signal by number (0 only asks whether the process is there).
pub fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: integers only.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends a signal by number to the process behind a pidfd.
pub fn send_by_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo makes it an ordinary kill.
    let ret = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(ret).map(drop)
}
