//! Phases of a start with nanoseconds, as JSON lines (`--timeline FILE`).
//!
//! The file is opened before anything else and written by the runtime and the container's process alike, one line a
//! phase, with the monotonic clock's time since the runtime began.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::error::{Code, Context, Result};
use crate::files;
use crate::time::monotonic;

struct Timeline {
    file: OwnedFd,
    begin: u64,
}

thread_local! {
    static CURRENT: RefCell<Option<Timeline>> = const { RefCell::new(None) };
}

/// Starts recording to a file.
pub(crate) fn open(path: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).context(Code::Output, path)?;
    let file = files::move_high(&file).context(Code::Output, path)?;
    CURRENT.with(|c| *c.borrow_mut() = Some(Timeline { file, begin: monotonic() }));
    Ok(())
}

/// Records that a phase is over; does nothing unless recording was requested.
pub(crate) fn mark(phase: &str) {
    crate::log::debug(phase);
    CURRENT.with(|c| {
        if let Some(timeline) = c.borrow().as_ref() {
            let now = monotonic().saturating_sub(timeline.begin);
            let line = format!("{{\"phase\":\"{phase}\",\"ns\":{now}}}\n");
            // A full disk must not stop a container.
            let _ = files::write_all(&timeline.file, line.as_bytes());
        }
    });
}

/// The file's descriptor, for the processes that go on recording.
pub(crate) fn raw_fd() -> Option<i32> {
    use std::os::fd::AsRawFd as _;
    CURRENT.with(|c| c.borrow().as_ref().map(|t| t.file.as_raw_fd()))
}
