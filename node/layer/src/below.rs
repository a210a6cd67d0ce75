//! What the layers below the one that is unpacked have under a path: the merged view that overlayfs will show of them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, openat, statat};
use rustix::io::Errno;

use crate::attributes::OPAQUE;
use crate::walk::{open_folder, read_link};

/// What is there.
pub(crate) enum Found {
    Folder(Stat),
    /// Its target.
    Link(PathBuf, Stat),
    File(OwnedFd, Stat),
    Pipe(Stat),
    /// Nothing that could be copied.
    Other,
}

/// What one layer says.
enum Layer {
    Has(Found),
    /// It says nothing, the layer below counts.
    Silent,
    /// Deleted, or hidden by something else of that name.
    Hidden,
}

/// What is at `path`, no part of which but the last is a symbolic link, in `layers`, topmost first.
pub(crate) fn find(layers: &[OwnedFd], path: &Path) -> Option<Found> {
    for layer in layers {
        match look(layer.as_fd(), path) {
            Ok(Layer::Has(found)) => return Some(found),
            Ok(Layer::Silent) => {}
            Ok(Layer::Hidden) | Err(_) => return None,
        }
    }
    None
}

fn look(layer: BorrowedFd<'_>, path: &Path) -> Result<Layer, Errno> {
    let Some(leaf) = path.file_name() else { return Ok(Layer::Hidden) };
    let mut at = PathBuf::new();
    let mut hides = false;
    for component in path.parent().into_iter().flatten() {
        let above = open_folder(layer, &at)?;
        match statat(&above, component, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
            Ok(_) => return Ok(Layer::Hidden),
            Err(Errno::NOENT) => return Ok(if hides { Layer::Hidden } else { Layer::Silent }),
            Err(errno) => return Err(errno),
        }
        at.push(component);
        hides |= is_opaque(above.as_fd(), component)?;
    }
    let folder = open_folder(layer, &at)?;
    let stat = match statat(&folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(if hides { Layer::Hidden } else { Layer::Silent }),
        Err(errno) => return Err(errno),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Layer::Has(Found::Folder(stat)),
        FileType::Symlink => Layer::Has(Found::Link(read_link(folder.as_fd(), leaf)?, stat)),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Layer::Has(Found::File(openat(&folder, leaf, flags, Mode::empty())?, stat))
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => Layer::Hidden,
        FileType::Fifo => Layer::Has(Found::Pipe(stat)),
        _ => Layer::Has(Found::Other),
    })
}

pub(crate) fn is_opaque(parent: BorrowedFd<'_>, folder: &OsStr) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut value = [0; 2];
    match fgetxattr(openat(parent, folder, flags, Mode::empty())?, OPAQUE, &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(_) => Ok(false),
    }
}
