//! `hull wait`.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use hull_sys::fd;
use hull_sys::process::{CloneOptions, Cloned, clone_process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::parse::Parsed;
use super::super::{Global, print};
use crate::container::store::{Entry, State};
use crate::container::{delete, exit};
use crate::error::{Code, Context, Error, Result};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    let state = entry.state()?;
    let status = match exit::of(&entry, &state) {
        Some(status) => status,
        None => until_end(&entry, &state, &delete::open(&state).map_err(|_| unknown(&entry))?)?,
    };
    print(&format!("{status}\n"))
}

fn unknown(entry: &Entry) -> Error {
    Error::new(Code::WrongState, entry.id.as_str())
        .says(format!("the exit status of {} is not known", entry.id))
        .hint("it ended before anybody waited; the kernel keeps the status for open pidfds only, since Linux 6.15")
}

/// Leaves a process behind that waits for the container's end and saves the exit status, in case nobody else waits.
pub(super) fn leave_behind(entry: &Entry, state: &State, pidfd: &OwnedFd) -> Result<()> {
    match clone_process(&CloneOptions::default()).doing(Code::Clone, &entry.id, "to wait for the end")? {
        Cloned::Parent { .. } => Ok(()),
        Cloned::Child => {
            let _ = rustix::process::setsid();
            // The caller may be waiting until nobody holds its pipes any more.
            if drop_streams().is_ok() && fd::close_except(&mut [entry.raw_fd(), pidfd.as_raw_fd()]).is_ok() {
                let _ = until_end(entry, state, pidfd);
            }
            hull_sys::process::exit(0)
        }
    }
}

fn drop_streams() -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    (0..3).try_for_each(|number| fd::place(null.as_fd(), number))
}

/// Waits for the end of the process, and saves its exit status.
fn until_end(entry: &Entry, state: &State, pidfd: &OwnedFd) -> Result<i32> {
    wait_for(pidfd, PollFlags::IN)?;
    loop {
        // Until its parent waits for it, it is a zombie. From then on, the kernel tells the status to others too (POLLHUP).
        let told = hull_sys::pidfd::info(pidfd.as_fd()).map_err(|_| unknown(entry))?.exit_code;
        let status = told.map(exit::shell_status).or_else(|| exit::of_zombie(state.pid, state.start_time));
        if let Some(status) = status {
            // The container may have been deleted meanwhile.
            let _ = entry.save_exit(status);
            return Ok(status);
        }
        wait_for(pidfd, PollFlags::HUP)?;
    }
}

fn wait_for(pidfd: &OwnedFd, event: PollFlags) -> Result<()> {
    while let Err(e) = poll(&mut [PollFd::new(pidfd, event)], None) {
        if e != Errno::INTR {
            return Err(Error::os(Code::Internal, "poll", e));
        }
    }
    Ok(())
}
