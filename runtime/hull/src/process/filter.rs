//! The seccomp program of a process: compiled before the process is made, or while it is being set up.
//!
//! A process has a millisecond of work before it needs its filter. Meanwhile the runtime compiles the profile and sends the program: an
//! instruction takes eight bytes, so even the longest program fits a socket's buffer.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::seccomp::{MAX_INSTRUCTIONS, Program};

const LONGEST: usize = 8 * MAX_INSTRUCTIONS + 16;

/// A program, or where it comes from.
#[derive(Debug)]
pub(crate) enum Filter {
    /// It is here.
    Ready(Program),
    /// [`Delivery::send`] sends it.
    Awaited(OwnedFd),
}

impl Filter {
    /// The process' end of a delivery that is still pending.
    pub(crate) fn raw_fd(&self) -> Option<i32> {
        match self {
            Self::Ready(_) => None,
            Self::Awaited(socket) => Some(socket.as_raw_fd()),
        }
    }

    /// The program; waits for it.
    pub(crate) fn program(&mut self) -> Result<&Program> {
        if let Self::Awaited(socket) = self {
            let bytes =
                files::read_all(socket, LONGEST).doing(Code::Seccomp, "linux.seccomp", "receiving the filter")?;
            let ended =
                || Error::new(Code::Seccomp, "linux.seccomp").says("the runtime ended before it sent the filter");
            *self = Self::Ready(Program::read(&bytes).ok_or_else(ended)?);
        }
        match self {
            Self::Ready(program) => Ok(program),
            Self::Awaited(_) => Err(Error::new(Code::Internal, "linux.seccomp")),
        }
    }
}

/// The runtime's end.
#[derive(Debug)]
pub(crate) struct Delivery {
    socket: OwnedFd,
}

impl Delivery {
    /// A delivery, and what its process gets.
    pub(crate) fn new() -> Result<(Self, Filter)> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context(Code::Internal, "socketpair")?;
        Ok((Self { socket }, Filter::Awaited(theirs)))
    }

    /// Sends the program. If the process is gone, that is detected elsewhere.
    pub(crate) fn send(self, program: &Program) {
        let mut bytes = Vec::with_capacity(LONGEST);
        program.write(&mut bytes);
        let _ = files::write_all(&self.socket, &bytes);
    }
}
