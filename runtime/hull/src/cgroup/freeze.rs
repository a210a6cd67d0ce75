//! Freezing, and waiting for events of a cgroup without polling.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::layout::MOUNT_POINT;
use super::{Cgroup, Directory, Record};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::time::Deadline;

/// How long freezing may take before it is given up and undone.
const FREEZE_MS: u32 = 10_000;

impl Cgroup {
    /// Stops every process inside and waits until all have stopped; thaws again if that does not happen.
    pub(crate) fn freeze(&self) -> Result<()> {
        if let Some(directory) = &self.v2 {
            match files::write_at(&directory.fd, "cgroup.freeze", b"1") {
                Ok(()) => {
                    if wait_event(Some(directory), "frozen 1", FREEZE_MS, &|| false)? {
                        return Ok(());
                    }
                    let _ = self.thaw();
                    return Err(Error::new(Code::Freeze, directory.path.as_str()).hint(
                        "a process inside cannot be stopped now (uninterruptible sleep?); the container runs on",
                    ));
                }
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(e) => return Err(Error::os(Code::Freeze, directory.path.as_str(), e)),
            }
        }
        let Some(directory) = self.with_controller("freezer") else {
            return Err(
                Error::new(Code::Unsupported, "pause").says("pause: the container has no cgroup that can be frozen")
            );
        };
        self.freeze_v1(directory)
    }

    fn freeze_v1(&self, directory: &Directory) -> Result<()> {
        let deadline = Deadline::after_ms(FREEZE_MS);
        loop {
            // Writing again makes the kernel look at tasks that were added meanwhile.
            directory.write("freezer.state", "FROZEN")?;
            if directory.read_text("freezer.state")?.trim() == "FROZEN" {
                return Ok(());
            }
            if deadline.passed() {
                let _ = directory.write("freezer.state", "THAWED");
                return Err(Error::new(Code::Freeze, directory.path.as_str()).hint("the container runs on"));
            }
            // Version 1 has no event for this; a poll timeout of one millisecond gives the kernel the time to stop tasks.
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
        }
    }

    /// Lets every process inside run again.
    pub(crate) fn thaw(&self) -> Result<()> {
        if let Some(directory) = &self.v2 {
            match files::write_at(&directory.fd, "cgroup.freeze", b"0") {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(e) => return Err(Error::os(Code::Freeze, directory.path.as_str(), e)),
            }
        }
        // Also the version 1 freezer: another tool may have used it.
        match self.with_controller("freezer") {
            Some(directory) => directory.write("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    /// Path of the directory that can be frozen.
    pub(crate) fn freezer(&self) -> Option<&str> {
        self.with_controller("freezer").or(self.v2.as_ref()).map(|d| d.path.as_str())
    }
}

impl Record {
    /// The directories of a plan must not be frozen, nor those in which they will be made.
    pub(super) fn refuse_frozen(&self) -> Result<()> {
        let freezer = self.v1.iter().find(|(name, _)| name.split(',').any(|c| c == "freezer")).map(|(_, path)| path);
        for (path, file, thawed) in
            [(freezer, "freezer.state", "THAWED"), (self.v2.as_ref(), "cgroup.events", "frozen 0")]
        {
            let Some(path) = path else { continue };
            // The nearest existing directory decides; the root has no such file.
            let mut nearest = path.as_str();
            let text = loop {
                match files::read_text(&format!("{nearest}/{file}"), 4096) {
                    Ok(text) => break Some(text),
                    Err(_) => match nearest.rsplit_once('/') {
                        Some((parent, _)) if parent.len() > MOUNT_POINT.len() => nearest = parent,
                        _ => break None,
                    },
                }
            };
            if text.is_some_and(|text| !text.lines().any(|line| line == thawed)) {
                let what = format!("{path}: container's cgroup unexpectedly frozen");
                return Err(Error::new(Code::CgroupCreate, path.as_str())
                    .says(what)
                    .hint(format!("thaw {nearest}, or give another linux.cgroupsPath")));
            }
        }
        Ok(())
    }

    /// Whether the processes inside are stopped.
    pub(crate) fn frozen(&self) -> bool {
        let events = self.v2.as_ref().and_then(|path| files::read_text(&format!("{path}/cgroup.events"), 4096).ok());
        if events.is_some_and(|text| text.lines().any(|l| l == "frozen 1")) {
            return true;
        }
        let freezer = self.v1.iter().find(|(name, _)| name.split(',').any(|c| c == "freezer"));
        freezer
            .and_then(|(_, path)| files::read_text(&format!("{path}/freezer.state"), 64).ok())
            .is_some_and(|text| matches!(text.trim(), "FROZEN" | "FREEZING"))
    }
}

/// Waits until `cgroup.events` has the line; without that file, until `check` holds.
pub(super) fn wait_event(
    directory: Option<&Directory>,
    line: &str,
    milliseconds: u32,
    check: &dyn Fn() -> bool,
) -> Result<bool> {
    let deadline = Deadline::after_ms(milliseconds);
    let events = match directory {
        Some(d) => match rustix::fs::openat(&d.fd, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Some(fd),
            Err(Errno::NOENT | Errno::NODEV) => None,
            Err(e) => return Err(Error::os(Code::CgroupRead, d.path.as_str(), e)),
        },
        None => None,
    };
    let Some(events) = events else {
        while !check() {
            if deadline.passed() {
                return Ok(false);
            }
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
        }
        return Ok(true);
    };
    let mut text = [0u8; 256];
    loop {
        let n = match rustix::io::pread(&events, &mut text, 0) {
            Ok(n) => n,
            // The group is gone, and with it everything inside.
            Err(Errno::NODEV) => return Ok(true),
            Err(e) => return Err(Error::os(Code::CgroupRead, "cgroup.events", e)),
        };
        let now = std::str::from_utf8(text.get(..n).unwrap_or(&[])).unwrap_or("");
        if now.lines().any(|l| l == line) {
            return Ok(true);
        }
        let Some(left) = deadline.left() else { return Ok(false) };
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).context(Code::CgroupRead, "cgroup.events"),
        }
    }
}
