//! Making processes and turning them into programs.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, last, owned};

/// Clone as a sibling of the caller instead of a child.
pub const CLONE_PARENT: u64 = 0x8000;

/// What the new process gets that its parent has not.
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneOptions<'a> {
    /// `CLONE_NEW…` bits (see [`crate::namespace`]) and [`CLONE_PARENT`].
    pub flags: u64,
    /// Cgroup v2 directory the process starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the clone the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// Id of the new process in the caller's PID namespace.
        pid: i32,
        /// Handle of the new process, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// `CLONE_FILES`: the new process shares the descriptors. It must end by [`exit`], or what it drops is closed for both.
pub const FILES: u64 = 0x400;

/// Whether the process has one thread only.
pub fn single_threaded() -> bool {
    // SAFETY: for a process with one thread this changes nothing, for others the kernel refuses it.
    let ret = unsafe { libc::syscall(libc::SYS_unshare, libc::c_long::from(libc::CLONE_THREAD)) };
    ret == 0
}

/// Copies the process (clone3). The child runs on a copy of the memory, so it may go on with ordinary code.
///
/// # Errors
/// `EDEADLK` when the process has more than one thread: a lock that another thread holds would stay locked for ever in
/// the child, so such a process must execute a program of its own instead. Otherwise what clone3(2) reports.
pub fn clone_process(options: &CloneOptions<'_>) -> Result<Cloned, Errno> {
    if !single_threaded() {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = options.flags | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    args.pidfd = (&raw mut pidfd).addr() as u64;
    if options.flags & CLONE_PARENT == 0 {
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: one thread only, no shared memory asked for (no CLONE_VM): the child gets its own copy of everything.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match check(ret)? {
        0 => Ok(Cloned::Child),
        pid => {
            Ok(Cloned::Parent { pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd: owned(pidfd.into())? })
        }
    }
}

/// Ends the process at once, without destructors or exit handlers.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// A null-terminated vector of strings as execve wants it, made before the moment it is needed.
#[derive(Debug)]
pub struct StringVector {
    #[expect(dead_code, reason = "owns what the pointers point to")]
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringVector {
    /// Makes the vector.
    ///
    /// # Errors
    /// `EINVAL` when a string holds a null byte.
    pub fn new<I, S>(strings: I) -> Result<Self, Errno>
    where
        I: IntoIterator<Item = S>,
        S: Into<Vec<u8>>,
    {
        let strings: Vec<CString> =
            strings.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(|_| Errno::INVAL)?;
        let mut pointers: Vec<*const libc::c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Self { strings, pointers })
    }
}

/// Becomes another program; returns only on failure.
pub fn execve(path: &CStr, argv: &StringVector, envp: &StringVector) -> Errno {
    // SAFETY: path and both vectors are null-terminated and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    last()
}

/// Becomes the program behind a descriptor; returns only on failure.
pub fn execveat(program: BorrowedFd<'_>, argv: &StringVector, envp: &StringVector) -> Errno {
    // SAFETY: the vectors are null-terminated and outlive the call; the empty path makes the kernel use the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last()
}
