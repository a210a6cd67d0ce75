//! Hard links, also to files of the layers below.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, linkat, mknodat, symlinkat};
use rustix::io::Errno;

use crate::UnpackError;
use crate::archive::Entry;
use crate::attributes::Attributes;
use crate::below::{self, Found};
use crate::layer::{Applied, Layer, clear, new_file};
use crate::mark::{Here, here};
use crate::walk::components;

impl Layer {
    /// Makes the entry, whose place is `path`, in the folder `parent`.
    pub(crate) fn hard_link(
        &mut self,
        entry: &Entry,
        path: &Path,
        parent: BorrowedFd<'_>,
    ) -> Result<Applied, UnpackError> {
        let (name, target) = (&entry.name, &entry.link);
        let missing = || UnpackError::HardLink { name: name.to_owned(), target: target.to_owned() };
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        let clean = components(target, name, "a hard link with \"..\"")?;
        let (Some(target_leaf), Some(leaf)) = (clean.file_name(), path.file_name()) else { return Err(missing()) };
        let (folder, folder_path) =
            self.parent(clean.parent().unwrap_or(Path::new("")), name).map_err(|error| match error {
                UnpackError::Escape { name, .. } => {
                    UnpackError::Escape { name, how: "a hard link through a symbolic link" }
                }
                UnpackError::Entry { .. } => missing(),
                other => other,
            })?;
        let target_path = folder_path.join(target_leaf);
        let found = here(folder.as_fd(), target_leaf).map_err(failed)?;
        if found == Here::Nothing && self.skipped.contains(&target_path) {
            clear(parent, leaf).map_err(failed)?;
            self.skipped.insert(path.to_owned());
            return Ok(Applied::DeviceSkipped);
        }
        match found {
            // A mark that got another name would delete that, too.
            Here::Mark => return Err(missing()),
            // A link to itself is there already.
            Here::File | Here::Link | Here::Folder if target_path == path => return Ok(Applied::Made),
            Here::Folder => return Err(missing()),
            Here::Nothing => self.copy_up(&target_path, folder.as_fd(), target_leaf, name)?,
            Here::File | Here::Link => {}
        }
        if target_path == path {
            // A copy of the file below.
            return here(parent, leaf).map_err(failed).and_then(|here| match here {
                Here::Nothing => Err(missing()),
                _ => Ok(Applied::Made),
            });
        }
        clear(parent, leaf).map_err(failed)?;
        // Without AT_SYMLINK_FOLLOW the link is made to the name itself, wherever a symbolic link of that name points.
        linkat(&folder, target_leaf, parent, leaf, AtFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::PERM => missing(),
            errno => failed(errno),
        })?;
        Ok(Applied::Made)
    }

    /// Copies what is in the layers below, as overlayfs does when a hard link to it is made.
    fn copy_up(&mut self, path: &Path, to: BorrowedFd<'_>, leaf: &OsStr, of: &Path) -> Result<(), UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        let (from, stat) = match below::find(&self.lower, path) {
            Some(Found::File(from, stat)) => (from, stat),
            Some(Found::Link(target, stat)) => {
                symlinkat(&target, to, leaf).map_err(failed)?;
                return Attributes::of(&stat).set_on_link(to, leaf).map_err(failed);
            }
            Some(Found::Pipe(stat)) => {
                mknodat(to, leaf, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(failed)?;
                return Attributes::of(&stat).set_on_fifo(to, leaf).map_err(failed);
            }
            // The link fails, with its own words.
            _ => return Ok(()),
        };
        self.take_room(u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
        let (mut from, mut file) = (std::fs::File::from(from), new_file(to, leaf).map_err(failed)?);
        io::copy(&mut from, &mut file).map_err(|source| UnpackError::Entry { name: of.to_owned(), source })?;
        let attributes = Attributes::of(&stat).with_xattrs_of(from.as_fd()).map_err(failed)?;
        attributes.set(file.as_fd()).map_err(failed)
    }
}
