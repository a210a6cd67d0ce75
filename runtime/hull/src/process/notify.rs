//! Handing the notify descriptor of a seccomp filter to its listener.
//!
//! The message is sent right after the filter is on; a filter that stops `sendmsg` itself for the listener is refused
//! when the profile is compiled.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::error::{Code, Context, Result};
use crate::seccomp::Program;

/// A connection to the listener and the message it gets with the descriptor.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    metadata: Option<String>,
    message: Vec<u8>,
}

impl Listener {
    /// Connects to the listener's socket. The message must not be empty: no descriptor would be sent without data.
    pub(crate) fn connect(path: &str, metadata: Option<String>) -> Result<Self> {
        let socket = crate::socket::connect(path).context(Code::Socket, path)?;
        Ok(Self { socket, metadata, message: Vec::new() })
    }

    pub(crate) fn raw_fd(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.socket.as_raw_fd()
    }

    /// Makes the message, when the process has an id: the container's state and that id.
    pub(crate) fn complete(&mut self, state: &[u8], pid: i32) {
        self.message = crate::container::state::seccomp_message(state, pid, self.metadata.as_deref());
    }

    /// Installs the filter and sends its descriptor.
    pub(crate) fn install(self, filter: &Program) -> Result<()> {
        let notify = hull_sys::seccomp::install(&filter.instructions, filter.flags)
            .doing(Code::Seccomp, "linux.seccomp", "installing the filter")?
            .ok_or(Errno::INVAL)
            .doing(Code::Seccomp, "linux.seccomp", "the filter has no notify action")?;
        crate::socket::send_with_fd(&self.socket, &self.message, &notify).doing(
            Code::Seccomp,
            "linux.seccomp.listenerPath",
            "sending the notify descriptor",
        )
    }
}
