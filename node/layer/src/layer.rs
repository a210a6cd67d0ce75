//! A layer's folder while the entries of its archive are made in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::archive::{Entry, Kind};
use crate::attributes::Attributes;
use crate::mark::{Here, here, opaque_folder};
use crate::walk::{BENEATH, components, or_root};
use crate::{UnpackError, remove};

#[derive(PartialEq, Eq)]
pub(crate) enum Applied {
    Made,
    DeviceSkipped,
}

pub(crate) struct Layer {
    pub(crate) root: OwnedFd,
    /// The layers below, topmost first.
    pub(crate) lower: Vec<OwnedFd>,
    /// Folders whose mode and time are set at the end: adding files changes the time and may need another mode.
    pub(crate) folders: Vec<(PathBuf, Attributes)>,
    /// Deletions, in overlayfs' form.
    pub(crate) marks: Vec<PathBuf>,
    /// Devices that were left out.
    pub(crate) skipped: BTreeSet<PathBuf>,
    /// Bytes that files may still have: a sparse file, or a copy from a layer below, is larger than what the archive has of it.
    room: u64,
    limit: u64,
}

impl Layer {
    pub(crate) fn open(into: &Path, lower: &[PathBuf], limit: u64) -> Result<Self, UnpackError> {
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| UnpackError::Entry { name: path.to_owned(), source: errno.into() })
        };
        Ok(Self {
            root: open(into)?,
            lower: lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?,
            folders: Vec::new(),
            marks: Vec::new(),
            skipped: BTreeSet::new(),
            room: limit,
            limit,
        })
    }

    pub(crate) fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<Applied, UnpackError> {
        let name = &entry.name;
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        let path = components(name, name, "\"..\"")?;
        let attributes = Attributes::of_entry(entry);
        let Some(leaf) = path.file_name().map(OsStr::to_owned) else {
            // The root folder itself.
            if entry.kind == Kind::Folder {
                self.folders.push((PathBuf::new(), attributes));
            }
            return Ok(Applied::Made);
        };
        let (parent, parent_path) = self.parent(path.parent().unwrap_or(Path::new("")), name)?;
        let parent = parent.as_fd();
        if let Some(hidden) = leaf.as_bytes().strip_prefix(b".wh.") {
            self.whiteout(name, &parent_path, parent, hidden)?;
            return Ok(Applied::Made);
        }
        let path = parent_path.join(&leaf);
        match entry.kind {
            Kind::Folder => {
                make_folder(parent, &leaf).map_err(failed)?;
                self.folders.push((path, attributes));
            }
            Kind::HardLink => return self.hard_link(entry, &path, parent),
            Kind::Symlink => {
                clear(parent, &leaf).map_err(failed)?;
                symlinkat(entry.link.as_os_str(), parent, &leaf).map_err(failed)?;
                attributes.set_on_link(parent, &leaf).map_err(failed)?;
            }
            Kind::Fifo => {
                clear(parent, &leaf).map_err(failed)?;
                mknodat(parent, &leaf, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(failed)?;
                attributes.set_on_fifo(parent, &leaf).map_err(failed)?;
            }
            Kind::Device => {
                clear(parent, &leaf).map_err(failed)?;
                self.skipped.insert(path);
                return Ok(Applied::DeviceSkipped);
            }
            Kind::File => {
                clear(parent, &leaf).map_err(failed)?;
                self.file(entry, parent, &leaf, content, &attributes)?;
            }
            Kind::Unknown(type_flag) => return Err(UnpackError::Unknown { name: name.to_owned(), type_flag }),
        }
        Ok(Applied::Made)
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        leaf: &OsStr,
        content: &mut impl Read,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Entry { name: entry.name.clone(), source };
        self.take_room(entry.size)?;
        let mut file = new_file(parent, leaf).map_err(|errno| failed(errno.into()))?;
        let mut buffer = vec![0; 64 * 1024];
        for extent in &entry.extents {
            file.seek(io::SeekFrom::Start(extent.offset)).map_err(failed)?;
            let mut part = content.take(extent.length);
            loop {
                let count = part.read(&mut buffer).map_err(UnpackError::Archive)?;
                if count == 0 {
                    break;
                }
                file.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
            }
        }
        // There may be a hole at the end.
        file.set_len(entry.size).map_err(failed)?;
        attributes.set(file.as_fd()).map_err(|errno| failed(errno.into()))
    }

    pub(crate) fn take_room(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.room = self.room.checked_sub(bytes).ok_or(UnpackError::TooBig(self.limit))?;
        Ok(())
    }

    /// Sets the folders' own attributes, deepest first, so that setting one does not touch the time of another.
    pub(crate) fn finish(mut self) -> Result<(), UnpackError> {
        for mark in std::mem::take(&mut self.marks) {
            self.drop_idle_mark(&mark).map_err(|errno| UnpackError::Entry { name: mark, source: errno.into() })?;
        }
        let folders = std::mem::take(&mut self.folders);
        // When a folder is described after it was implied, the description is the later one and must win.
        let mut last = std::collections::BTreeMap::new();
        for (path, attributes) in folders {
            last.insert(path, attributes);
        }
        for (path, attributes) in last.into_iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let how = BENEATH | ResolveFlags::NO_SYMLINKS;
            let fd = match openat2(&self.root, or_root(&path), flags, Mode::empty(), how) {
                Ok(fd) => fd,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(UnpackError::Entry { name: path, source: errno.into() }),
            };
            attributes.set(fd.as_fd()).map_err(|errno| UnpackError::Entry { name: path, source: errno.into() })?;
        }
        Ok(())
    }
}

/// Makes way: the last entry of a name wins.
pub(crate) fn clear(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, leaf, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove::folder(parent, leaf),
        Err(errno) => Err(errno),
    }
}

fn make_folder(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    match here(parent, leaf)? {
        Here::Folder => Ok(()),
        Here::Nothing => mkdirat(parent, leaf, Mode::from_raw_mode(0o700)),
        Here::Mark | Here::Link | Here::File => opaque_folder(parent, leaf),
    }
}

pub(crate) fn new_file(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<std::fs::File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, leaf, flags, Mode::from_raw_mode(0o600)).map(std::fs::File::from)
}
