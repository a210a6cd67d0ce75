//! Deletions: as images have them (image-spec, layer.md, "Whiteouts"), and as overlayfs does.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, mkdirat, mknodat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::UnpackError;
use crate::attributes::OPAQUE;
use crate::below::{self, is_opaque};
use crate::layer::Layer;
use crate::walk::{BENEATH, open_folder, or_root};

/// What a layer has under a name.
#[derive(PartialEq, Eq)]
pub(crate) enum Here {
    Nothing,
    Folder,
    Link,
    /// A deletion, in overlayfs' form.
    Mark,
    /// Anything else.
    File,
}

pub(crate) fn here(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<Here, Errno> {
    match statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Here::Folder,
            FileType::Symlink => Here::Link,
            FileType::CharacterDevice if stat.st_rdev == 0 => Here::Mark,
            _ => Here::File,
        }),
        Err(Errno::NOENT) => Ok(Here::Nothing),
        Err(errno) => Err(errno),
    }
}

/// Puts a folder in the place of a file or of a deletion. It hides what the layers below have, as that did.
pub(crate) fn opaque_folder(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    unlinkat(parent, leaf, AtFlags::empty())?;
    mkdirat(parent, leaf, Mode::from_raw_mode(0o700))?;
    mark_opaque(parent, leaf)
}

fn mark_opaque(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fsetxattr(openat(parent, leaf, flags, Mode::empty())?, OPAQUE, b"y", XattrFlags::empty())
}

impl Layer {
    /// Applies the mark `.wh.HIDDEN` in the folder `parent`, which is at `parent_path`.
    pub(crate) fn whiteout(
        &mut self,
        name: &Path,
        parent_path: &Path,
        parent: BorrowedFd<'_>,
        hidden: &[u8],
    ) -> Result<(), UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        if hidden == b".wh..opq" {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = openat2(&self.root, or_root(parent_path), flags, Mode::empty(), BENEATH).map_err(failed)?;
            return fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty()).map_err(failed);
        }
        // Bookkeeping of aufs that old images still carry.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(UnpackError::Escape { name: name.to_owned(), how: "a deletion mark" });
        }
        let hidden = OsStr::from_bytes(hidden);
        // It hides what the layers below have; what this layer has stays (image-spec, layer.md).
        match here(parent, hidden).map_err(failed)? {
            Here::Nothing => {
                mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed)?;
                self.marks.push(parent_path.join(hidden));
            }
            Here::Folder => mark_opaque(parent.as_fd(), hidden).map_err(failed)?,
            Here::Mark | Here::Link | Here::File => {}
        }
        Ok(())
    }

    /// Removes a mark that hides nothing. Overlayfs leaves marks out of a folder's listing only where it merges the folder of several layers:
    /// anywhere else there would be a name that nothing can be done with.
    pub(crate) fn drop_idle_mark(&self, path: &Path) -> Result<(), Errno> {
        let (Some(folder), Some(leaf)) = (path.parent(), path.file_name()) else { return Ok(()) };
        // A later entry may have replaced the folder.
        let Ok(parent) = open_folder(self.root.as_fd(), folder) else { return Ok(()) };
        if here(parent.as_fd(), leaf)? != Here::Mark {
            return Ok(());
        }
        let hides = below::find(&self.lower, path).is_some() && !self.is_in_opaque(folder)?;
        if hides { Ok(()) } else { unlinkat(&parent, leaf, AtFlags::empty()) }
    }

    /// Whether nothing of the layers below is to be seen in this folder.
    fn is_in_opaque(&self, folder: &Path) -> Result<bool, Errno> {
        for at in folder.ancestors() {
            let above = open_folder(self.root.as_fd(), at.parent().unwrap_or(Path::new("")))?;
            if is_opaque(above.as_fd(), at.file_name().unwrap_or(OsStr::new(".")))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
