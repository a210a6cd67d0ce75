//! Processes started in a container again and again, by one runtime that stays: it already knows what a new runtime would have to find out
//! each time (records, configuration, cgroups, namespaces). For health checks, which run every few seconds.
//!
//! The client holds the other end of a `SOCK_SEQPACKET` socket. The first message on it is `R` (ready) or `E` and an error. A request is the
//! JSON of a `process` with four descriptors: the socket for the answers, then the process' three standard streams. The answers are `I` with
//! the process id and a pidfd, and at its end `X` with the exit code; or `E` and an error. Numbers are four bytes in native byte order. When
//! the client closes its end, processes run on, and the last of them ends the session.

use std::os::fd::OwnedFd;

use hull_sys::process::{CloneOptions, Cloned, clone_process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::exec::{self, Entrance, ExecOptions, Target};
use super::sync::{self, Message};
use super::{bundle, foreground};
use crate::error::{Code, Context, Error, Result};
use crate::process::launch;
use crate::socket;

/// Largest request.
pub(crate) const LARGEST_REQUEST: usize = 128 << 10;

/// A process that was started, and who wants to know its end.
#[derive(Debug)]
struct Running {
    pidfd: OwnedFd,
    answers: OwnedFd,
}

/// Begins a session in a process of its own, which is nobody's child: the client need not wait for it.
pub(crate) fn begin(container: Target, options: &ExecOptions) -> Result<()> {
    let requests = launch::take_stdin().context(Code::Socket, "standard input")?;
    match clone_process(&CloneOptions::default()).context(Code::Clone, "session")? {
        Cloned::Parent { .. } => Ok(()),
        Cloned::Child => {
            let _ = rustix::process::setsid();
            serve(requests, container, options)
        }
    }
}

/// Serves a session until it is over.
fn serve(requests: OwnedFd, container: Target, options: &ExecOptions) -> Result<()> {
    let entrance = Entrance::open(container, options);
    let mut entrance = match entrance {
        Ok(entrance) => entrance,
        // The client is at the other end; nobody reads the log of this process.
        Err(error) => return sync::send(&requests, &Message::Failed(error)).context(Code::Socket, "session"),
    };
    sync::send(&requests, &Message::Ready).context(Code::Socket, "session")?;
    let mut requests = Some(requests);
    let mut running: Vec<Running> = Vec::new();
    while requests.is_some() || !running.is_empty() {
        let ready = wait(requests.as_ref(), &entrance, &running)?;
        if ready.ended {
            // No more processes can be started; the clients' handles report that.
            requests = None;
        }
        let mut index = 0;
        running.retain(|process| {
            let over = ready.processes.get(index) == Some(&true);
            index += 1;
            over.then(|| tell_end(process)).is_none()
        });
        if ready.request
            && let Some(socket) = &requests
        {
            match socket::receive_with_fds(socket, LARGEST_REQUEST) {
                Ok((bytes, _)) if bytes.is_empty() => requests = None,
                Ok((bytes, fds)) => running.extend(answer(&mut entrance, options, &bytes, fds)),
                // Nobody can be told: the socket for the answer may not have arrived. Its end is closed here.
                Err(Errno::MSGSIZE) => {}
                Err(e) => return Err(Error::os(Code::Socket, "session", e)),
            }
        }
    }
    Ok(())
}

/// What happened.
struct Ready {
    request: bool,
    ended: bool,
    processes: Vec<bool>,
}

fn wait(requests: Option<&OwnedFd>, entrance: &Entrance, running: &[Running]) -> Result<Ready> {
    let mut fds: Vec<PollFd<'_>> = running.iter().map(|process| PollFd::new(&process.pidfd, PollFlags::IN)).collect();
    fds.extend(entrance.target().filter(|_| requests.is_some()).map(|fd| PollFd::new(fd, PollFlags::IN)));
    fds.extend(requests.map(|fd| PollFd::new(fd, PollFlags::IN)));
    while let Err(e) = poll(&mut fds, None) {
        if e != Errno::INTR {
            return Err(Error::os(Code::Internal, "poll", e));
        }
    }
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let (processes, rest) = ready.split_at(running.len());
    let [ended, request] = match rest {
        [ended, request] => [*ended, *request],
        _ => [false, false],
    };
    Ok(Ready { request, ended, processes: processes.to_vec() })
}

/// The asker may have lost interest.
fn tell_end(process: &Running) {
    let status = foreground::reap(&process.pidfd).unwrap_or(255);
    let _ = sync::send(&process.answers, &Message::Exit(status));
}

/// Starts the requested process, and reports that.
fn answer(entrance: &mut Entrance, base: &ExecOptions, bytes: &[u8], fds: Vec<OwnedFd>) -> Option<Running> {
    let mut fds = fds.into_iter();
    let answers = fds.next()?;
    let streams = match (fds.next(), fds.next(), fds.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => [stdin, stdout, stderr],
        _ => return None,
    };
    let executed = request(base, bytes).and_then(|options| {
        entrance.check()?;
        let executed = entrance.start(&options, Some(streams))?;
        match rustix::io::fcntl_dupfd_cloexec(&executed.pidfd, 0) {
            Ok(theirs) => Ok((executed, theirs)),
            Err(errno) => {
                exec::end(&executed.pidfd);
                Err(Error::os(Code::Descriptors, "pidfd", errno).says("handle of the process"))
            }
        }
    });
    match executed {
        Ok((executed, theirs)) => {
            let _ = sync::send(&answers, &Message::Init { pid: executed.pid, pidfd: theirs });
            Some(Running { pidfd: executed.pidfd, answers })
        }
        Err(error) => {
            let _ = sync::send(&answers, &Message::Failed(error));
            None
        }
    }
}

fn request(base: &ExecOptions, bytes: &[u8]) -> Result<ExecOptions> {
    let process: crate::spec::Process = crate::spec::read(bytes, "process", "process")?;
    bundle::check_process(&process)?;
    if process.terminal {
        return Err(Error::new(Code::Unsupported, "process.terminal")
            .says("process.terminal in a session")
            .hint("use exec"));
    }
    Ok(ExecOptions { process, ..base.clone() })
}
