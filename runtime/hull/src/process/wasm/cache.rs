//! Asks `hull-wasm cache`, outside the container, for the compiled form of a module.
//!
//! It returns code that it compiled itself, from the bytes that it hashed, kept in a directory that no container can write to; a container's
//! own compilation is never kept, because one container could plant code for another. Without an answer in time the container compiles for
//! itself.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, StringVector, clone_process, execve, exit};
use hull_sys::{fd, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::config::Config;
use crate::container::sync::{self, Message};
use crate::error::{Code, Context, Error, Result};
use crate::process::own_binary;
use crate::{socket, timeline};

/// The compiler itself may use 20 s of processor time.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Answers the container's process.
pub(crate) fn answer(config: &Config, module: OwnedFd, socket: impl AsFd) -> Result<()> {
    let compiled = match config.cache() {
        None => None,
        Some(directory) => match ask(config, directory, &module) {
            Ok((found, compiled)) => {
                timeline::mark(if found { "wasm-found" } else { "wasm-compiled" });
                Some(compiled)
            }
            Err(error) => {
                crate::log::warn(&format!("{error}; the container compiles its module itself"));
                None
            }
        },
    };
    sync::send(socket, &Message::Compiled(compiled)).context(Code::Internal, "sync")
}

/// The compiled form, and whether it was there already.
fn ask(config: &Config, directory: &str, module: &OwnedFd) -> Result<(bool, OwnedFd)> {
    let program = config.program()?;
    let failed = |what: &str| Error::new(Code::Wasm, directory).says(format!("cache {directory}: {what}"));
    let nul = |_| failed("null byte in its path");
    let path = std::ffi::CString::new(program.as_str()).map_err(|_| failed("null byte in the program's path"))?;
    let argv = StringVector::new(["hull-wasm", "cache", directory]).map_err(nul)?;
    let envp = StringVector::new(std::iter::empty::<&str>()).map_err(nul)?;
    let (ours, theirs) = socket::pair().context(Code::Wasm, "socketpair")?;
    let pidfd = match clone_process(&CloneOptions::default()).context(Code::Wasm, &program)? {
        Cloned::Child => {
            if connect(module, &theirs).is_ok() {
                execve(&path, &argv, &envp);
            }
            exit(127)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let answered = poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&PATIENCE)).is_ok_and(|ready| ready > 0);
    let answer = if answered { Some(socket::receive(&ours).context(Code::Wasm, "cache")) } else { None };
    if !matches!(answer, Some(Ok(_))) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let (bytes, compiled) = answer.ok_or_else(|| failed("no answer in time"))??;
    match (bytes.first(), compiled) {
        (Some(b'F'), Some(file)) => Ok((true, own_binary::read_only_file(&file)?)),
        (Some(b'C'), Some(file)) => Ok((false, own_binary::read_only_file(&file)?)),
        (Some(b'E'), _) => Err(failed(&String::from_utf8_lossy(bytes.get(1..).unwrap_or(&[])))),
        _ => Err(failed("hull-wasm ended without an answer")),
    }
}

/// The helper's standard streams: the module, the way back, nothing.
fn connect(module: &OwnedFd, back: &OwnedFd) -> Result<(), rustix::io::Errno> {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fd::place(module.as_fd(), 0)?;
    fd::place(back.as_fd(), 1)?;
    fd::place(null.as_fd(), 2)?;
    fd::cloexec_from(3)?;
    signal::reset_dispositions();
    signal::unblock_all()
}
