//! Compiling a module that nobody vouches for, in a process that can do nothing else.
//!
//! The compiler is large and its input comes from the container's image, while it runs outside the container. So it
//! runs in a copy of this process that has given up its user, its capabilities and every system call but those that
//! memory and two pipes' ends need. A module that takes the compiler over can spoil its own compiled form and nothing
//! else, and that form is run in containers that have the same module.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, clone_process, exit};
use hull_sys::seccomp::SockFilter;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, WaitIdStatus, setrlimit, waitid};
use wasmtime::Engine;

use crate::program::Kind;

/// Processor time of one compilation.
const SECONDS: u64 = 20;
/// Addresses, the module and this program included.
const MEMORY: u64 = 2 << 30;
/// Of an image; a compiled module is a few times as large as the module.
const IMAGE_LIMIT: u64 = 512 << 20;
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot start the compiler: {0}")]
    Start(Errno),
    #[error("cannot read from the compiler: {0}")]
    Read(std::io::Error),
    #[error("the compiler refuses the module")]
    Refused,
    #[error("the compiler was ended by signal {signal} (it may use {SECONDS} s and {} MiB)", MEMORY >> 20)]
    Killed { signal: i32 },
    #[error("the compiler could not give up its rights")]
    Rights,
}

/// The worker's own exit statuses.
const DONE: i32 = 0;
const REFUSED: i32 = 1;
const NO_SANDBOX: i32 = 2;

/// Compiles a module or component.
pub(crate) fn compile(engine: &Engine, kind: Kind, module: &[u8]) -> Result<Vec<u8>, WorkerError> {
    let (from_worker, to_parent) = pipe_with(PipeFlags::CLOEXEC).map_err(WorkerError::Start)?;
    let pidfd = match clone_process(&CloneOptions::default()).map_err(WorkerError::Start)? {
        Cloned::Child => exit(work(engine, kind, module, to_parent)),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(to_parent);
    let mut image = Vec::new();
    // Closes the pipe too, so that a worker with more to say ends.
    let read = File::from(from_worker).take(IMAGE_LIMIT).read_to_end(&mut image);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map_err(WorkerError::Start)?;
    read.map_err(WorkerError::Read)?;
    match status.as_ref().and_then(WaitIdStatus::exit_status) {
        Some(DONE) => Ok(image),
        Some(NO_SANDBOX) => Err(WorkerError::Rights),
        Some(_) => Err(WorkerError::Refused),
        None => Err(WorkerError::Killed { signal: status.and_then(|s| s.terminating_signal()).unwrap_or(0) }),
    }
}

fn work(engine: &Engine, kind: Kind, module: &[u8], output: OwnedFd) -> i32 {
    if give_up_everything(&output).is_err() {
        return NO_SANDBOX;
    }
    let image = match kind {
        Kind::Module => engine.precompile_module(module),
        Kind::Component => engine.precompile_component(module),
    };
    match image {
        Ok(image) if File::from(output).write_all(&image).is_ok() => DONE,
        _ => REFUSED,
    }
}

fn give_up_everything(output: &OwnedFd) -> Result<(), Errno> {
    let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    limit(Resource::Cpu, SECONDS)?;
    limit(Resource::Core, 0)?;
    limit(Resource::As, MEMORY)?;
    hull_sys::fd::close_except(&mut [output.as_raw_fd()])?;
    // The module's file and the way to hull are standard streams of this process.
    for number in 0..3 {
        hull_sys::fd::place(output.as_fd(), number)?;
    }
    if rustix::process::geteuid().is_root() {
        let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        // Takes the capabilities with it.
        rustix::thread::set_thread_res_uid(user, user, user)?;
    }
    // Forgotten at a change of user, so not before.
    hull_sys::prctl::set_parent_death_signal(libc::SIGKILL)?;
    hull_sys::prctl::set_dumpable(false)?;
    hull_sys::prctl::set_no_new_privs()?;
    hull_sys::seccomp::install(&filter(), 0).map(drop)
}

/// What a computation with one thread needs.
const CALLS: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// A filter that kills the process for every other call.
fn filter() -> Vec<SockFilter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    let kill = SockFilter { code: RETURN, k: KILL_PROCESS, ..SockFilter::default() };
    let mut program = vec![
        SockFilter { code: LOAD, k: 4, ..SockFilter::default() },
        SockFilter { code: EQUAL, jt: 1, k: ARCHITECTURE, ..SockFilter::default() },
        kill,
        SockFilter { code: LOAD, k: 0, ..SockFilter::default() },
    ];
    for call in CALLS {
        let number = u32::try_from(*call).unwrap_or(u32::MAX);
        program.push(SockFilter { code: EQUAL, jf: 1, k: number, ..SockFilter::default() });
        program.push(SockFilter { code: RETURN, k: ALLOW, ..SockFilter::default() });
    }
    program.push(kill);
    program
}
