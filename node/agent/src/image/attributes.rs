//! Owner, permissions, time and extended attributes of an image's files.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr, flistxattr,
    fsetxattr, futimens, utimensat,
};
use rustix::io::Errno;

/// Overlayfs' mark of a folder that hides what the layers below it have.
pub(super) const OPAQUE: &str = "user.overlay.opaque";
/// Longest value of an extended attribute that is copied.
const MAX_XATTR: usize = 4096;

#[derive(Clone)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// Those of a file that is there, without the extended ones.
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let (uid, gid, mtime) = (stat.st_uid, stat.st_gid, stat.st_mtime);
        Self { mode: stat.st_mode & 0o7777, uid, gid, mtime, xattrs: Vec::new() }
    }

    /// Those of a folder that nobody describes.
    pub(super) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }
    }

    /// Those of an entry of an archive.
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let id = |id: io::Result<u64>| u32::try_from(id?).map_err(|_| bad("an owner above 32 bits"));
        let mut attributes = Self {
            mode: header.mode()? & 0o7777,
            uid: id(header.uid())?,
            gid: id(header.gid())?,
            mtime: i64::try_from(header.mtime()?).unwrap_or(0),
            xattrs: Vec::new(),
        };
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let Ok(key) = extension.key() else { continue };
            // What follows would be a map of the file's holes in front of its content.
            if key.starts_with("GNU.sparse.") {
                return Err(bad("a sparse file in the PAX form, which no tool for images writes"));
            }
            if let Some(name) = key.strip_prefix("SCHILY.xattr.").filter(|name| is_content(name)) {
                attributes.xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
        Ok(attributes)
    }

    /// These, with the extended attributes of a file that is there.
    pub(super) fn with_xattrs_of(mut self, file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = vec![0; 64 * 1024];
        let length = match flistxattr(file, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(errno) => return Err(errno),
        };
        names.truncate(length);
        for name in names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
            let mut value = vec![0; MAX_XATTR];
            if is_content(name)
                && let Ok(length) = fgetxattr(file, name, &mut value[..])
            {
                value.truncate(length);
                self.xattrs.push((name.to_owned(), value));
            }
        }
        Ok(self)
    }

    /// Sets them. Owner first: changing it clears the setuid bit and file capabilities.
    pub(super) fn set(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(fd, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
                // A file system without this kind of attribute; the file itself is whole.
                Err(Errno::NOTSUP | Errno::PERM) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        futimens(fd, &self.times())
    }

    /// Sets the owner of what cannot be opened.
    pub(super) fn set_owner(&self, parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(parent, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets the time of what cannot be opened.
    pub(super) fn set_time(&self, parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
        utimensat(parent, leaf, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Overlayfs' own attributes are instructions to the kernel, not content; of the rest, those that a workspace can use are kept.
fn is_content(xattr: &str) -> bool {
    xattr == "security.capability" || (xattr.starts_with("user.") && !xattr.starts_with("user.overlay."))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
