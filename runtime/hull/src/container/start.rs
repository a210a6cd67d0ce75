//! Starting a created container.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::notify_socket;
use super::parent::release;
use super::store::{Entry, START_SOCKET, State, Status};
use crate::error::{Code, Context, Error, Result};
use crate::spec::Spec;
use crate::{hooks, socket};

/// Starts a container that waits for it.
pub(crate) fn start(root: &str, id: &str) -> Result<()> {
    let entry = Entry::open(root, id)?;
    entry.lock()?;
    let state = entry.state()?;
    let wrong = |why: &str| Err(Error::new(Code::WrongState, id).says(why));
    match state.status(&entry) {
        Status::Created => {}
        Status::Stopped => return wrong("cannot start a container that has stopped"),
        Status::Creating => return wrong("cannot start a container that is being created"),
        Status::Paused => return wrong("cannot start a container in the paused state"),
        Status::Running => return wrong("cannot start an already running container"),
    }
    let process = super::delete::open(&state)?;
    let notify = notify_socket::listen(&entry.path)?;
    let path = entry.file(START_SOCKET);
    let connection = socket::connect(&path).context(Code::Socket, &path)?;
    release(&connection, id)
        .and_then(|()| entry.started())
        .and_then(|()| poststart(&entry.config()?, &state, &process))
        .inspect_err(|error| stop(&entry, &state, &process, error))?;
    match notify {
        Some(socket) => {
            entry.unlock();
            notify_socket::wait(&socket, &process, state.pid)
        }
        None => Ok(()),
    }
}

/// Stops a container whose start failed. One whose hook failed is destroyed too (runtime.md, life cycle, 7 and 9); of any other, who started it
/// can see what became of it.
fn stop(entry: &Entry, state: &State, process: &OwnedFd, error: &Error) {
    end(process);
    if error.code() == Code::Hook
        && let Err(error) = super::delete::clean(entry, state)
    {
        crate::log::warn(&error.to_string());
    }
}

/// Ensures that a container whose start failed has stopped by the time the caller learns of it.
fn end(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL);
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience));
}

/// Runs the poststart hooks: the program is running already; a hook that fails stops the container.
pub(crate) fn poststart(spec: &Spec, state: &State, process: &OwnedFd) -> Result<()> {
    let Some(h) = spec.hooks.as_ref().filter(|h| !h.poststart.is_empty()) else { return Ok(()) };
    let json = super::state::json_for_hooks(spec, &state.id, &state.bundle, "running", state.pid);
    hooks::run("poststart", &h.poststart, &json, Some(&state.bundle), &[]).inspect_err(|_| end(process))
}
