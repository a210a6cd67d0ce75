//! Notifications that the kernel killed a process for lack of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use super::Cgroup;
use crate::error::{Code, Context, Result};
use crate::files;

/// Tells when the kernel killed for lack of memory.
pub(crate) enum OomWatch {
    /// Version 1: an eventfd registered with the group, which must stay open.
    V1(OwnedFd, #[expect(dead_code, reason = "the registration lives as long as it")] OwnedFd),
    /// Version 2: the events file and the last count seen.
    V2(OwnedFd, u64),
    /// No memory controller.
    None,
}

impl OomWatch {
    pub(crate) fn new(cgroup: &Cgroup) -> Result<Self> {
        if let Some(directory) = cgroup.with_controller("memory") {
            use std::os::fd::AsRawFd as _;
            let event =
                eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(Code::CgroupRead, "eventfd")?;
            let control = rustix::fs::openat(
                &directory.fd,
                "memory.oom_control",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .with(Code::CgroupRead, || directory.path.clone())?;
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            files::write_at(&directory.fd, "cgroup.event_control", line.as_bytes())
                .with(Code::CgroupRead, || directory.path.clone())?;
            return Ok(Self::V1(event, control));
        }
        let Some(directory) = &cgroup.v2 else { return Ok(Self::None) };
        match rustix::fs::openat(&directory.fd, "memory.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                let count = oom_count(&fd);
                Ok(Self::V2(fd, count))
            }
            Err(_) => Ok(Self::None),
        }
    }

    /// What to poll.
    pub(crate) fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::V1(event, _) => Some((event.as_fd(), PollFlags::IN)),
            Self::V2(events, _) => Some((events.as_fd(), PollFlags::PRI)),
            Self::None => None,
        }
    }

    /// Whether it happened since the last time.
    pub(crate) fn happened(&mut self) -> bool {
        match self {
            Self::V1(event, _) => {
                let mut count = [0u8; 8];
                rustix::io::read(event, &mut count).is_ok()
            }
            Self::V2(events, last) => {
                let now = oom_count(events);
                std::mem::replace(last, now) < now
            }
            Self::None => false,
        }
    }
}

fn oom_count(events: &OwnedFd) -> u64 {
    let mut text = [0u8; 512];
    let n = rustix::io::pread(events, &mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(text.get(..n).unwrap_or(&[])).unwrap_or("");
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")).and_then(|n| n.parse().ok()).unwrap_or(0)
}
