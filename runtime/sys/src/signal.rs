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

/// Lets writes to a pipe without a reader fail instead of ending the process.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN needs no handler code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

extern "C" fn leave(signal: libc::c_int) {
    // SAFETY: _exit is async-signal-safe and has no preconditions.
    unsafe { libc::_exit(128_i32.saturating_add(signal)) }
}

/// Makes a signal end the process with status 128 plus its number, also as the first process of a PID namespace, which
/// gets no signal that has no handler.
pub fn exit_on(signal: i32) -> Result<(), Errno> {
    let handler: extern "C" fn(libc::c_int) = leave;
    // SAFETY: the handler calls nothing but _exit.
    let ret = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    if ret == libc::SIG_ERR { Err(crate::raw::last()) } else { Ok(()) }
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
