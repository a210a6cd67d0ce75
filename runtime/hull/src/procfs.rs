//! Files of the host's /proc that the runtime writes to, or believes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::files;

/// The root of a procfs that has been seen to be one.
///
/// Opened before a namespace of mounts is joined, it stays the runtime's own, and still names the caller `self`. What is mounted over a file
/// below it is not opened but refused: neither it nor a link can lead a write to another file.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    pub(crate) fn open() -> Result<Self, Errno> {
        const ROOT_INODE: u64 = 1;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())?;
        let whole = is_procfs(&proc) && rustix::fs::fstat(&proc)?.st_ino == ROOT_INODE;
        if whole { Ok(Self(proc)) } else { Err(Errno::NODEV) }
    }

    pub(crate) fn try_clone(&self) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 3).map(Self)
    }

    /// Opens a file by its path below /proc, on the way to which /proc/self and its like are the only links.
    pub(crate) fn file(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
    }

    /// Writes to a file in one call.
    pub(crate) fn write(&self, path: &str, text: &[u8]) -> Result<(), Errno> {
        files::write_once(&self.file(path, OFlags::WRONLY)?, text)
    }

    /// Reads a text file of at most `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: usize) -> Result<String, Errno> {
        let bytes = files::read_all(&self.file(path, OFlags::RDONLY)?, limit)?;
        String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a handle is on a procfs.
pub(crate) fn is_procfs(fd: impl AsFd) -> bool {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_opened_and_nothing_that_links_lead_to() {
        let proc = Proc::open().unwrap();
        let own = proc.read("self/comm", 64).unwrap();
        assert_eq!(own, std::fs::read_to_string("/proc/self/comm").unwrap());
        let refused = |path| proc.file(path, OFlags::RDONLY).map(drop).unwrap_err();
        assert_eq!(refused("self/root/etc/passwd"), Errno::LOOP);
        assert_eq!(refused("self/exe"), Errno::LOOP);
        assert_eq!(refused("../etc/passwd"), Errno::XDEV);
        assert_eq!(refused("/etc/passwd"), Errno::XDEV);
    }
}
