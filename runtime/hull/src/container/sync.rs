//! Messages between the runtime and the processes it makes.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::socket;

/// Messages of both sides; their first byte is the kind.
#[derive(Debug)]
pub(crate) enum Message {
    /// The in-between process made the container's process.
    Init { pid: i32, pidfd: OwnedFd },
    /// A new user namespace waits for its id maps.
    WantsMaps,
    /// The namespaces exist; the runtime's work (network devices, mapped mounts) is due.
    NamespacesReady,
    /// The mounts are made and the root is not yet changed: the runtime's hooks are due.
    MountsReady,
    /// The terminal's other end.
    Terminal(OwnedFd),
    /// The process is a WebAssembly module; asks for its compiled form.
    Module(OwnedFd),
    /// That form, if there is one (from the runtime).
    Compiled(Option<OwnedFd>),
    /// The container's cgroups of version 1 are complete: the files by which a process enters them (from the runtime).
    Cgroups(Vec<OwnedFd>),
    /// systemd has moved the process, into these cgroups.
    Moved(cgroup::Record),
    /// Everything is set up.
    Ready,
    /// It failed.
    Failed(Error),
    /// Go on (from the runtime): the process' id outside, and whether groups may be set.
    Go { pid: i32, set_groups: bool },
    /// Run the program (from the runtime).
    Start,
    /// A process that was started for somebody has ended, with its exit code or 128 plus the signal.
    Exit(i32),
    /// The other side is gone.
    End,
}

const INIT: u8 = b'I';
const WANTS_MAPS: u8 = b'M';
const NAMESPACES: u8 = b'N';
const MOUNTS: u8 = b'H';
const TERMINAL: u8 = b'T';
const MODULE: u8 = b'W';
const COMPILED: u8 = b'C';
const CGROUPS: u8 = b'D';
const READY: u8 = b'R';
const FAILED: u8 = b'E';
const GO: u8 = b'G';
const START: u8 = b'S';
const EXIT: u8 = b'X';
const MOVED: u8 = b'V';

/// Largest message: an error's text.
pub(crate) const LARGEST: usize = 16_384;

/// Sends a message.
pub(crate) fn send(socket: impl AsFd, message: &Message) -> Result<(), Errno> {
    match message {
        Message::Init { pid, pidfd } => {
            let [a, b, c, d] = pid.to_ne_bytes();
            socket::send_with_fd(socket, &[INIT, a, b, c, d], pidfd)
        }
        Message::WantsMaps => socket::send(socket, &[WANTS_MAPS]),
        Message::NamespacesReady => socket::send(socket, &[NAMESPACES]),
        Message::MountsReady => socket::send(socket, &[MOUNTS]),
        Message::Terminal(fd) => socket::send_with_fd(socket, &[TERMINAL], fd),
        Message::Module(fd) => socket::send_with_fd(socket, &[MODULE], fd),
        Message::Compiled(Some(fd)) => socket::send_with_fd(socket, &[COMPILED], fd),
        Message::Compiled(None) => socket::send(socket, &[COMPILED]),
        Message::Moved(record) => {
            let mut bytes = vec![MOVED];
            bytes.extend(serde_json::to_vec(record).unwrap_or_default());
            socket::send(socket, &bytes)
        }
        Message::Cgroups(entrances) => {
            let entrances: Vec<_> = entrances.iter().map(AsFd::as_fd).collect();
            socket::send_with_fds(socket, &[CGROUPS], &entrances)
        }
        Message::Ready => socket::send(socket, &[READY]),
        Message::Failed(error) => {
            let mut bytes = vec![FAILED];
            bytes.extend(error.to_wire());
            socket::send(socket, &bytes)
        }
        Message::Go { pid, set_groups } => {
            let [a, b, c, d] = pid.to_ne_bytes();
            socket::send(socket, &[GO, a, b, c, d, u8::from(*set_groups)])
        }
        Message::Start => socket::send(socket, &[START]),
        Message::Exit(status) => {
            let [a, b, c, d] = status.to_ne_bytes();
            socket::send(socket, &[EXIT, a, b, c, d])
        }
        Message::End => Ok(()),
    }
}

/// Receives a message.
pub(crate) fn receive(socket: impl AsFd) -> Result<Message> {
    receive_within(socket, LARGEST)
}

/// Receives a message of the runtime: all of those are short, and a large buffer would be so many pages that the process
/// touches for the first time.
pub(crate) fn receive_short(socket: impl AsFd) -> Result<Message> {
    const LONGEST: usize = 16;
    receive_within(socket, LONGEST)
}

fn receive_within(socket: impl AsFd, limit: usize) -> Result<Message> {
    let (bytes, mut fds) =
        socket::receive_with_fds(socket, limit).doing(Code::Internal, "sync", "message of the container's process")?;
    if bytes.first() == Some(&CGROUPS) {
        return Ok(Message::Cgroups(fds));
    }
    let fd = fds.pop();
    let number = |bytes: &[u8]| match bytes {
        [_, a, b, c, d, ..] => i32::from_ne_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    Ok(match (bytes.first().copied(), fd) {
        (None, _) => Message::End,
        (Some(INIT), Some(pidfd)) => Message::Init { pid: number(&bytes), pidfd },
        (Some(MOVED), _) => Message::Moved(
            serde_json::from_slice(bytes.get(1..).unwrap_or(&[]))
                .map_err(|e| Error::new(Code::Internal, "sync").says(e.to_string()))?,
        ),
        (Some(WANTS_MAPS), _) => Message::WantsMaps,
        (Some(NAMESPACES), _) => Message::NamespacesReady,
        (Some(MOUNTS), _) => Message::MountsReady,
        (Some(TERMINAL), Some(fd)) => Message::Terminal(fd),
        (Some(MODULE), Some(fd)) => Message::Module(fd),
        (Some(COMPILED), fd) => Message::Compiled(fd),
        (Some(READY), _) => Message::Ready,
        (Some(FAILED), _) => Message::Failed(Error::from_wire(bytes.get(1..).unwrap_or(&[]))),
        (Some(GO), _) => Message::Go { pid: number(&bytes), set_groups: bytes.get(5) == Some(&1) },
        (Some(START), _) => Message::Start,
        (Some(EXIT), _) => Message::Exit(number(&bytes)),
        (Some(other), _) => return Err(Error::new(Code::Internal, "sync").says(format!("unknown message {other}"))),
    })
}

/// The container's side: waits for the go-ahead.
pub(crate) fn await_go(socket: &OwnedFd) -> Result<(i32, bool)> {
    match receive_short(socket)? {
        Message::Go { pid, set_groups } => Ok((pid, set_groups)),
        _ => Err(ended()),
    }
}

/// The container's side: waits for the entrances of its cgroups.
pub(crate) fn await_cgroups(socket: &OwnedFd) -> Result<Vec<OwnedFd>> {
    match receive_short(socket)? {
        Message::Cgroups(entrances) => Ok(entrances),
        _ => Err(ended()),
    }
}

/// The container's side: waits until systemd has moved this process, and learns where to.
pub(crate) fn await_move(socket: &OwnedFd) -> Result<cgroup::Record> {
    match receive(socket)? {
        Message::Moved(record) => Ok(record),
        _ => Err(ended()),
    }
}

fn ended() -> Error {
    Error::new(Code::Internal, "sync").says("the runtime ended during set-up")
}
