//! Stays with a process in the foreground: forwards signals to it, copies its terminal, and returns its exit status.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::signal as syssignal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Code, Context, Error, Result};
use crate::files;

const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
const SIGPIPE: i32 = 13;

/// Signals that are handled in the loop instead of ending the runtime.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// From now on, signals are read from a descriptor.
    pub(crate) fn catch() -> Result<Self> {
        syssignal::block_all_into_fd().map(Self).context(Code::Internal, "signalfd")
    }
}

/// The caller's terminal in raw mode; restored when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return None;
        }
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // Line ends are converted here and only here: the container's terminal leaves them as they are (`console::plain_lines`).
        raw.output_modes.insert(OutputModes::OPOST);
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Waits for the process; returns its exit status, or 128 plus the signal that ended it.
///
/// `notify` is the container's notify socket with the process' id, until the container has reported that it is ready.
pub(crate) fn attend(
    pidfd: &OwnedFd,
    signals: &Signals,
    master: Option<&OwnedFd>,
    mut notify: Option<(OwnedFd, i32)>,
) -> Result<i32> {
    let raw = master.and_then(|_| RawTerminal::enter());
    if let Some(master) = master {
        copy_size(master);
        rustix::io::ioctl_fionbio(master, true).context(Code::Console, "master")?;
    }
    let mut input_open = true;
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(&signals.0, PollFlags::IN)];
        if let Some(master) = master {
            fds.push(PollFd::new(master, PollFlags::IN));
            if input_open {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        if let Some((socket, _)) = &notify {
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        if let Some(master) = master {
            if ready.get(2) == Some(&true) {
                drain(master);
            }
            if input_open && ready.get(3) == Some(&true) {
                input_open = feed(master);
            }
        }
        if let Some((socket, pid)) = &notify
            && ready.last() == Some(&true)
            && super::notify_socket::forward(socket, *pid)?
        {
            notify = None;
        }
        if ready.get(1) == Some(&true) {
            forward(pidfd, &signals.0, master);
        }
        if ready.first() == Some(&true) {
            if let Some(master) = master {
                drain(master);
            }
            drop(raw);
            return reap(pidfd);
        }
    }
}

/// Takes the exit status of a child.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<i32> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|s| s.saturating_add(128)))
                    .unwrap_or(255));
            }
            Ok(None) => {}
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::os(Code::Internal, "wait", e)),
        }
    }
}

fn forward(pidfd: &OwnedFd, signals: &OwnedFd, master: Option<&OwnedFd>) {
    let mut record = [0u8; 128];
    while let Ok(128) = rustix::io::read(signals, &mut record) {
        match syssignal::number_of(&record) {
            SIGCHLD | SIGURG | SIGPIPE => {}
            // It is about the caller's window; without a terminal it means other things to programs: Apache stops.
            SIGWINCH => {
                if let Some(master) = master {
                    copy_size(master);
                }
            }
            signal => {
                // It may have ended just now.
                let _ = syssignal::send_by_pidfd(pidfd.as_fd(), signal);
            }
        }
    }
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Copies what the terminal has to standard output.
fn drain(master: &OwnedFd) {
    let mut chunk = [0u8; 8192];
    loop {
        match rustix::io::read(master, &mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                if files::write_all(rustix::stdio::stdout(), chunk.get(..n).unwrap_or(&[])).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            // Nothing more now, or (EIO) the other end is closed for good.
            Err(_) => return,
        }
    }
}

/// Copies one piece of standard input to the terminal; false at its end.
fn feed(master: &OwnedFd) -> bool {
    let mut chunk = [0u8; 4096];
    match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
        Ok(0) => {
            // End of input: what Ctrl-D means to a terminal.
            let _ = files::write_all(master, &[4]);
            false
        }
        Ok(n) => {
            let mut rest = chunk.get(..n).unwrap_or(&[]);
            while !rest.is_empty() {
                match rustix::io::write(master, rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
                    Err(Errno::AGAIN) => {
                        // The program reads slowly; its output must go on meanwhile.
                        drain(master);
                        let _ = poll(&mut [PollFd::new(master, PollFlags::OUT | PollFlags::IN)], None);
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}
