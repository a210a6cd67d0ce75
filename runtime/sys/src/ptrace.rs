//! Tracing other processes from system call to system call: how the tests kill programs at each of them.
//!
//! All calls must come from the tracing thread: the kernel ties a tracee to the thread that attached it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;

use crate::raw::{check, check_int};

/// Processes that a tracee makes are followed too.
pub const FOLLOW_NEW: u32 = 0x2 | 0x4 | 0x8; // TRACEFORK, TRACEVFORK, TRACECLONE
/// An execve is an event of its own.
pub const REPORT_EXEC: u32 = 0x10;
/// Tracees die with the tracer.
pub const KILL_ON_EXIT: u32 = 0x10_0000;
/// Tells system calls apart from traps; without it [`wait`] cannot name them.
const SYSCALL_GOOD: u32 = 0x1;

/// What happened to a tracee, or to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It ended with this exit status; it is gone.
    Exited(i32),
    /// It was ended by this signal; it is gone.
    Killed(i32),
    /// It stands before or after a system call.
    Syscall,
    /// It has just become another program.
    Exec,
    /// It made another process, which is now followed.
    New,
    /// It is a new process in its first moment, or one that was interrupted or stopped.
    Stop,
    /// This signal is about to be delivered.
    Signal(i32),
}

/// How a tracee goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// To the next system call's beginning or end.
    Syscall,
    /// To the next event.
    Run,
    /// Without being followed any longer.
    Detach,
}

/// Lets the calling thread trace the program that `command` starts: it stops right after its execve with SIGTRAP.
pub fn trace_from_exec(command: &mut Command) {
    let trace_me = || {
        // SAFETY: the request takes no pointers; a bare system call is fine between fork and execve.
        let ret = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        check(ret).map(drop).map_err(std::io::Error::from)
    };
    // SAFETY: the closure makes one system call and nothing else.
    unsafe { command.pre_exec(trace_me) };
}

fn request(request: libc::c_uint, pid: i32, data: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the requests this is used for take a number as data and no address.
    let ret = unsafe { libc::ptrace(request, pid, 0, data) };
    check(ret).map(drop)
}

/// Begins to trace a process that runs, without stopping it.
///
/// # Errors
/// `ESRCH` when it is gone, `EPERM` when it may not be traced.
pub fn seize(pid: i32, options: u32) -> Result<(), Errno> {
    request(libc::PTRACE_SEIZE, pid, (options | SYSCALL_GOOD).into())
}

/// Stops a process that was seized.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn interrupt(pid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, pid, 0)
}

/// Sets which events of a stopped tracee are reported.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn set_options(pid: i32, options: u32) -> Result<(), Errno> {
    request(libc::PTRACE_SETOPTIONS, pid, (options | SYSCALL_GOOD).into())
}

/// Lets a stopped tracee go on, with a signal or (0) without.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn resume(pid: i32, how: Resume, signal: i32) -> Result<(), Errno> {
    let kind = match how {
        Resume::Syscall => libc::PTRACE_SYSCALL,
        Resume::Run => libc::PTRACE_CONT,
        Resume::Detach => libc::PTRACE_DETACH,
    };
    request(kind, pid, libc::c_ulong::try_from(signal).map_err(|_| Errno::INVAL)?)
}

/// A system call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// Its number.
    pub number: u64,
    /// Its arguments; those that it does not take hold anything.
    pub args: [u64; 6],
}

/// The system call before which a tracee stands; `None` after one.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn entered_syscall(pid: i32) -> Result<Option<Entered>, Errno> {
    const ENTRY: u8 = 1;
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        op: u8,
        pad: [u8; 3],
        arch: u32,
        instruction: u64,
        stack: u64,
        number: u64,
        args: [u64; 6],
        rest: u64,
    }
    let mut info = Info::default();
    // SAFETY: the size given is that of the struct, which lives until the call is over.
    let ret = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of::<Info>(), &raw mut info) };
    check(ret)?;
    Ok((info.op == ENTRY).then_some(Entered { number: info.number, args: info.args }))
}

/// Waits for something to happen to any tracee or child of the calling thread. `None` when there is none left.
///
/// # Errors
/// What waitpid(2) reports.
pub fn wait() -> Result<Option<(i32, Event)>, Errno> {
    let mut status = 0;
    let pid = loop {
        // SAFETY: the status lives until the call is over.
        let ret = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match check_int(ret) {
            Ok(pid) => break pid,
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(None),
            Err(e) => return Err(e),
        }
    };
    Ok(Some((pid, event(status))))
}

fn event(status: i32) -> Event {
    if libc::WIFEXITED(status) {
        return Event::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Event::Killed(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Event::Syscall,
        0 => Event::Signal(signal),
        libc::PTRACE_EVENT_EXEC => Event::Exec,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Event::New,
        _ => Event::Stop,
    }
}
