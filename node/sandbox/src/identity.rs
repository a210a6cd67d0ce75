//! Identity of a process: a pid alone may be reused; a pid with its start time and boot id is unique.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number in the host's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` of that boot.
    pub boot_id: String,
}

/// A process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// `/proc/sys/kernel/random/boot_id` cannot be read.
    #[error("the boot id of this machine cannot be read: is /proc mounted?")]
    BootId(#[source] io::Error),
    /// `/proc/<pid>/stat` cannot be read.
    #[error("process {pid} cannot be looked at: it has ended")]
    Stat {
        /// The process.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `/proc/<pid>/stat` is not as documented.
    #[error("the start time of process {pid} cannot be found in its /proc stat line")]
    Parse {
        /// The process.
        pid: u32,
    },
    /// The pidfd cannot be made.
    #[error("no pidfd can be opened for process {pid}")]
    Pidfd {
        /// The process.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// Of a process that the caller knows to be alive (its child, itself).
    pub fn of(pid: u32) -> Result<Self, IdentityError> {
        Ok(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()? })
    }

    /// Opens a pidfd, if that very process still exists (a zombie counts). `None` if it is gone, or the machine has booted since.
    pub fn open(&self) -> Result<Option<OwnedFd>, IdentityError> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(IdentityError::Pidfd { pid: self.pid, source: error.into() }),
        };
        // Read after the pidfd is held: if the pid had been given to another process in between, its start time would differ.
        match start_time(self.pid) {
            Ok(found) if found == self.start_time => Ok(Some(pidfd)),
            Ok(_) | Err(IdentityError::Stat { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The id of the present boot.
pub(crate) fn boot_id() -> Result<String, IdentityError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(IdentityError::BootId)?;
    Ok(text.trim().to_owned())
}

fn start_time(pid: u32) -> Result<u64, IdentityError> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|source| IdentityError::Stat { pid, source })?;
    // The second field is the command in parentheses and may itself hold spaces and parentheses: count from its end.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or(IdentityError::Parse { pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_another_life_of_its_pid_is_not() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.open().unwrap().is_some());
        assert!(Identity { start_time: me.start_time + 1, ..me.clone() }.open().unwrap().is_none());
        assert!(Identity { boot_id: "another".to_owned(), ..me }.open().unwrap().is_none());
    }

    #[test]
    fn a_reaped_process_is_gone() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.open().unwrap().is_some());
        child.wait().unwrap();
        assert!(identity.open().unwrap().is_none());
    }
}
