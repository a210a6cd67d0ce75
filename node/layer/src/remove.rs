//! Removing what holds a stranger's files: by descriptors, without following links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::walk::open_folder;

/// Removes a folder of ours that holds a stranger's files.
///
/// # Errors
/// When the kernel refuses; what could not be removed is still there.
pub fn tree(path: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(above, flags, Mode::empty()).and_then(|above| folder(above.as_fd(), name)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a folder and what is in it. One folder is open at a time, however deep they are.
pub(crate) fn folder(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let mut waiting = vec![PathBuf::from(name)];
    while let Some(path) = waiting.last() {
        let inside = empty(parent, path)?;
        if inside.is_empty() {
            let at = open_folder(parent, path.parent().unwrap_or(Path::new("")))?;
            match unlinkat(&at, path.file_name().unwrap_or_default(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            waiting.pop();
        } else {
            waiting.extend(inside);
        }
    }
    Ok(())
}

/// Removes the files in a folder; returns the folders in it.
fn empty(parent: BorrowedFd<'_>, path: &Path) -> Result<Vec<PathBuf>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let at = open_folder(parent, path.parent().unwrap_or(Path::new("")))?;
    let fd = openat(&at, path.file_name().unwrap_or_default(), flags, Mode::empty())?;
    let mut inside = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let leaf = OsStr::from_bytes(entry.file_name().to_bytes());
        if leaf == "." || leaf == ".." {
            continue;
        }
        match unlinkat(&fd, leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => inside.push(path.join(leaf)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(inside)
}
