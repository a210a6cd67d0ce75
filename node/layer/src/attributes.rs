//! Owner, permissions, time and extended attributes of an image's files.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fgetxattr, flistxattr,
    fsetxattr, futimens, utimensat,
};
use rustix::io::Errno;

use crate::archive::{Entry, Time};

/// Overlayfs' mark of a folder that hides what the layers below it have.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";
/// Longest value of an extended attribute, as the kernel has it.
const MAX_XATTR: usize = 64 * 1024;

#[derive(Clone)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Time,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Those of a file that is there, without the extended ones.
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Self {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        let modified = Time { seconds: stat.st_mtime, nanoseconds };
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, modified, xattrs: Vec::new() }
    }

    /// Those of a folder that nobody describes.
    pub(crate) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, modified: Time::default(), xattrs: Vec::new() }
    }

    /// Those of an entry of an archive.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let (mode, uid, gid, modified) = (entry.mode, entry.uid, entry.gid, entry.modified);
        let xattrs = entry.xattrs.iter().filter(|(name, _)| is_content(name)).cloned().collect();
        Self { mode, uid, gid, modified, xattrs }
    }

    /// These, with the extended attributes of a file that is there.
    pub(crate) fn with_xattrs_of(mut self, file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = vec![0; 64 * 1024];
        let length = match flistxattr(file, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(errno) => return Err(errno),
        };
        names.truncate(length);
        for name in names.split(|byte| *byte == 0) {
            let mut value = vec![0; MAX_XATTR];
            if is_content(name)
                && let Ok(length) = fgetxattr(file, name, &mut value[..])
            {
                value.truncate(length);
                self.xattrs.push((name.to_vec(), value));
            }
        }
        Ok(self)
    }

    /// Sets them. Owner first: changing it clears the setuid bit and file capabilities.
    pub(crate) fn set(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(fd, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                // A file system without this kind of attribute; the file itself is whole.
                Err(Errno::NOTSUP | Errno::PERM) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        futimens(fd, &self.times())
    }

    /// Sets those that a symbolic link has.
    pub(crate) fn set_on_link(&self, parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
        self.set_owner(parent, leaf)?;
        utimensat(parent, leaf, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets those of a named pipe, which may not be opened.
    pub(crate) fn set_on_fifo(&self, parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
        self.set_owner(parent, leaf)?;
        // It was just made, and nobody else makes anything here: it is no link that this could follow.
        chmodat(parent, leaf, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        utimensat(parent, leaf, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_owner(&self, parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(parent, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.modified.seconds, tv_nsec: self.modified.nanoseconds.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Overlayfs' own attributes are instructions to the kernel, not content; of the rest, those that a workspace can use are kept.
fn is_content(xattr: &[u8]) -> bool {
    xattr == b"security.capability" || (xattr.starts_with(b"user.") && !xattr.starts_with(b"user.overlay."))
}
