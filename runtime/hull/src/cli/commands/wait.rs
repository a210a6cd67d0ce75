//! `hull wait`.

use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::super::parse::Parsed;
use super::super::{Global, print};
use crate::container::{delete, store::Entry};
use crate::error::{Code, Error, Result};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    let state = entry.state()?;
    let status = match entry.exit() {
        Some(status) => status,
        None => wait(&entry, &state)?,
    };
    print(&format!("{status}\n"))
}

fn wait(entry: &Entry, state: &crate::container::store::State) -> Result<i32> {
    let unknown = || {
        Error::new(Code::WrongState, format!("the exit status of {} is not known", entry.id))
            .hint("it ended before anybody waited; the kernel keeps the status for open pidfds only, since Linux 6.15")
    };
    let pidfd = delete::open(state).map_err(|_| unknown())?;
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
        }
    }
    // A zombie until its parent takes the status: then the kernel tells it to others too (POLLHUP).
    loop {
        match hull_sys::pidfd::info(pidfd.as_fd()) {
            Ok(info) => {
                if let Some(code) = info.exit_code {
                    let status = if code & 0x7f == 0 { code >> 8 & 0xff } else { 128 + (code & 0x7f) };
                    let _ = entry.save_exit(status);
                    return Ok(status);
                }
            }
            Err(_) => return Err(unknown()),
        }
        match poll(&mut [PollFd::new(&pidfd, PollFlags::HUP)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
        }
    }
}
