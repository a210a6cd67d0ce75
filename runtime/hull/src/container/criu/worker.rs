//! `criu swrk`: one CRIU process, one request, and what it asks on the way.
//!
//! Its command line would be enough for saving, but restoring needs the conversation: only there does CRIU hand out the master of a terminal,
//! and only there can the process be put into its cgroup before anything is restored.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, StringVector, clone_process, execve, exit};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::wire::{Field, Fields, Message};
use super::{CRIU_PATH, program};
use crate::cgroup::Cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::{files, socket};

/// Kinds of requests and answers.
pub(super) const DUMP: u64 = 1;
pub(super) const RESTORE: u64 = 2;
pub(super) const PRE_DUMP: u64 = 4;
const NOTIFY: u64 = 6;

/// A CRIU that waits for its request.
#[derive(Debug)]
pub(super) struct Worker {
    socket: OwnedFd,
    pub(super) pid: i32,
    pidfd: OwnedFd,
}

/// What CRIU tells while it works.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    pub(crate) what: String,
    pub(crate) pid: i32,
    pub(crate) fd: Option<OwnedFd>,
}

/// The answer to a request.
#[derive(Debug, Default)]
struct Answer {
    kind: u64,
    success: bool,
    pid: i32,
    notice: Notice,
    message: String,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse(bytes: &[u8]) -> Answer {
    let id = |n: u64| i32::try_from(n).unwrap_or(0);
    let mut out = Answer::default();
    for field in Fields(bytes) {
        match field {
            (1, Field::Number(kind)) => out.kind = kind,
            (2, Field::Number(success)) => out.success = success != 0,
            (4, Field::Bytes(restored)) => {
                for field in Fields(restored) {
                    if let (1, Field::Number(pid)) = field {
                        out.pid = id(pid);
                    }
                }
            }
            (5, Field::Bytes(notice)) => {
                for field in Fields(notice) {
                    match field {
                        (1, Field::Bytes(what)) => out.notice.what = text(what),
                        (2, Field::Number(pid)) => out.notice.pid = id(pid),
                        _ => {}
                    }
                }
            }
            (9, Field::Bytes(message)) => out.message = text(message),
            _ => {}
        }
    }
    out
}

impl Worker {
    /// Starts CRIU, inside `cgroup` if there is one, with the descriptors `kept` at their numbers. Its standard streams
    /// are ours when `streams`, for they become those of what it restores.
    pub(super) fn start(cgroup: Option<&Cgroup>, kept: &[&OwnedFd], streams: bool) -> Result<Self> {
        let program = program()?;
        let (ours, theirs) = socket::pair().doing(Code::Checkpoint, "criu", "socket pair")?;
        let argv = ["criu", "swrk", &theirs.as_raw_fd().to_string()].map(str::to_owned);
        let nul = |e| Error::os(Code::Internal, "criu", e).says("arguments of criu");
        let argv = StringVector::new(argv).map_err(nul)?;
        let envp = StringVector::new([format!("PATH={CRIU_PATH}")]).map_err(nul)?;
        let path = CString::new(program).map_err(|_| Error::new(Code::Internal, program))?;
        let entrances = cgroup.map_or_else(|| Ok(Vec::new()), Cgroup::entrances)?;
        let target = cgroup.and_then(Cgroup::clone_target);
        match clone_process(&CloneOptions { flags: 0, cgroup: target }).doing(Code::Clone, "criu", "for criu")? {
            Cloned::Child => {
                for entrance in &entrances {
                    if files::write_once(entrance, b"0").is_err() {
                        exit(125);
                    }
                }
                for fd in kept.iter().copied().chain([&theirs]) {
                    let _ = hull_sys::fd::keep_over_exec(fd.as_raw_fd());
                }
                if !streams && let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
                    for number in 0..3 {
                        let _ = hull_sys::fd::place(null.as_fd(), number);
                    }
                }
                let _ = hull_sys::signal::unblock_all();
                let _ = execve(&path, &argv, &envp);
                exit(126)
            }
            Cloned::Parent { pid, pidfd } => Ok(Self { socket: ours, pid, pidfd }),
        }
    }

    /// Sends the request and answers its notices until it is done; gives the id of what was restored, 0 otherwise.
    pub(super) fn request(
        self,
        kind: u64,
        options: &Message,
        notice: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<i32> {
        let io = |e| Error::os(Code::Checkpoint, "criu", e).says("talking to criu");
        let mut request = Message::default();
        request.number(1, kind).message(2, options);
        socket::send(&self.socket, request.as_bytes()).map_err(io)?;
        let pid = loop {
            let (bytes, fd) = socket::receive(&self.socket).map_err(io)?;
            if bytes.is_empty() {
                return Err(Error::new(Code::Checkpoint, "criu").says("criu ended without an answer"));
            }
            let mut answer = parse(&bytes);
            if answer.kind == NOTIFY && answer.success {
                answer.notice.fd = fd;
                let result = notice(answer.notice);
                let mut reply = Message::default();
                reply.number(1, NOTIFY).number(3, u64::from(result.is_ok()));
                let sent = socket::send(&self.socket, reply.as_bytes()).map_err(io);
                result?;
                sent?;
                continue;
            }
            if !answer.success {
                return Err(Error::new(Code::Checkpoint, "criu").says(answer.message));
            }
            break answer.pid;
        };
        Ok(pid)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends when the conversation does; after a pre-dump it would wait for the next request.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut restored = Message::default();
        restored.id(1, 4711);
        let mut answer = Message::default();
        answer.number(1, RESTORE).flag(2, true).message(4, &restored);
        let answer = parse(answer.as_bytes());
        assert_eq!((answer.kind, answer.success, answer.pid), (RESTORE, true, 4711));
    }
}
