//! Forking, signals and inherited descriptors, for the small single-threaded processes of a workspace (`berth-init` and its roles).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use crate::raw::{check, check_int, owned};

/// Runs `child` in a forked copy of this process, which ends with the exit status it returns.
///
/// # Errors
/// `EBUSY` when this process has more than one thread: a copy then holds locks that nobody releases. Otherwise what fork(2) reports.
pub fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // The link count of the directory is two plus one per thread.
    if rustix::fs::stat("/proc/self/task")?.st_nlink > 3 {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is no other thread, so the copy is as good a process as the original.
    let pid = check_int(unsafe { libc::fork() })?;
    if let Some(pid) = Pid::from_raw(pid) {
        return Ok(pid);
    }
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
    // SAFETY: _exit does not return and runs none of the parent's exit handlers.
    unsafe { libc::_exit(status) }
}

/// Moves this process into new namespaces.
///
/// # Errors
/// `EINVAL` when `flags` would unshare the descriptor table; otherwise what unshare(2) reports.
pub fn unshare_namespaces(flags: UnshareFlags) -> Result<(), Errno> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: the descriptor table stays shared, which is the one thing that can be unsafe here.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn set_of(signals: &[Signal]) -> Result<libc::sigset_t, Errno> {
    // SAFETY: an all-zero sigset_t is a valid value, sigemptyset then makes it a defined one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid, exclusively borrowed sigset_t.
    check_int(unsafe { libc::sigemptyset(&raw mut set) })?;
    for signal in signals {
        // SAFETY: as above; a number out of range is reported as EINVAL.
        check_int(unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) })?;
    }
    Ok(set)
}

/// Blocks `signals` for this thread and returns a non-blocking, close-on-exec descriptor from which they can be read.
///
/// # Errors
/// What sigprocmask(2) and signalfd(2) report.
pub fn signal_descriptor(signals: &[Signal]) -> Result<OwnedFd, Errno> {
    let set = set_of(signals)?;
    // SAFETY: `set` is initialised, no old mask is asked for.
    check_int(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: `set` is initialised; a new descriptor is asked for.
    let fd = check_int(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    owned(libc::c_long::from(fd))
}

/// The numbers of the signals in what was read from [`signal_descriptor`].
pub fn signal_numbers(read: &[u8]) -> impl Iterator<Item = i32> + '_ {
    // struct signalfd_siginfo is 128 bytes and begins with the number as u32.
    read.chunks_exact(128)
        .filter_map(|info| info.first_chunk::<4>())
        .filter_map(|number| i32::try_from(u32::from_ne_bytes(*number)).ok())
}

/// Gives every signal its default action and unblocks all: what a program expects to be started with.
///
/// # Errors
/// What sigprocmask(2) reports.
pub fn reset_signals() -> Result<(), Errno> {
    for number in 1..=31 {
        // SAFETY: the default action runs no code of ours. SIGKILL and SIGSTOP refuse, which is right.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let set = set_of(&[])?;
    // SAFETY: `set` is initialised, no old mask is asked for.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }).map(drop)
}

/// Ignores `signals`.
pub fn ignore_signals(signals: &[Signal]) {
    for signal in signals {
        // SAFETY: ignoring runs no code of ours.
        unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
    }
}

/// Signals every other process of the pid namespace. Only its process 1 may: for anyone else, "everyone" is a whole machine.
///
/// # Errors
/// `EPERM` when this is not process 1; otherwise what kill(2) reports, `ESRCH` when there is no other process.
pub fn signal_everyone(signal: Signal) -> Result<(), Errno> {
    if !rustix::process::getpid().is_init() {
        return Err(Errno::PERM);
    }
    // SAFETY: kill has no memory effects.
    check_int(unsafe { libc::kill(-1, signal.as_raw()) }).map(drop)
}

/// Takes ownership of a descriptor that this process was started with, and makes it close-on-exec. Call once a number, first thing in `main`.
///
/// # Errors
/// `EINVAL` for the standard streams, `EBADF` when it is not open.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number <= libc::STDERR_FILENO {
        return Err(Errno::INVAL);
    }
    // SAFETY: F_SETFD on any number has no memory effects.
    check_int(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and by this function's contract nobody in this process owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on that this process was started with. Call it first thing in `main`, before this process has opened
/// any itself.
pub fn close_inherited_from(first: u32) {
    // SAFETY: by this function's contract nobody in this process owns one of them yet. Before Linux 5.9 there is no such call: then they stay.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) };
}

/// Duplicates `fd` to exactly `number`, without close-on-exec, for a program about to be executed. Whatever was at `number` is closed,
/// so this belongs in a forked child that has no other use for it.
///
/// # Errors
/// What dup2(2) and fcntl(2) report.
pub fn place_descriptor(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        // SAFETY: F_SETFD has no memory effects.
        return check_int(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: the caller is about to execute another program and uses nothing that was at `number`.
    check_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What close_range(2) reports; `ENOSYS` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the descriptors stay open, only a flag changes.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs tests on threads of their own.
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(fork(|| 0), Err(Errno::BUSY)));
        });
    }

    #[test]
    fn only_process_one_signals_everyone() {
        assert_eq!(signal_everyone(Signal::URG), Err(Errno::PERM));
    }

    #[test]
    fn signal_numbers_are_read() {
        let mut buffer = [0u8; 300];
        buffer[0] = 17;
        buffer[128] = 15;
        assert_eq!(signal_numbers(&buffer).collect::<Vec<_>>(), [17, 15]);
    }
}
