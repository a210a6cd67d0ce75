//! From a name in an archive to the folder it goes into.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat};
use rustix::io::Errno;

use crate::UnpackError;
use crate::attributes::Attributes;
use crate::below::{self, Found};
use crate::layer::Layer;
use crate::mark::{Here, here, opaque_folder};

/// Symbolic links on one path, as the kernel has it.
const MAX_LINKS: u32 = 40;

pub(crate) const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// The entry's path as plain components; nothing for the root itself.
pub(crate) fn components(name: &Path, of: &Path, how: &'static str) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Escape { name: of.to_owned(), how });
            }
        }
    }
    Ok(clean)
}

/// The path as the kernel takes it.
pub(crate) fn or_root(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// A folder of a layer, no part of whose path is a link.
pub(crate) fn open_folder(layer: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(layer, or_root(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)
}

pub(crate) fn read_link(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<PathBuf, Errno> {
    Ok(PathBuf::from(OsString::from_vec(readlinkat(parent, leaf, Vec::new())?.into_bytes())))
}

impl Layer {
    /// The folder that an entry goes into, and its path in the layer, with the folders on the way made where the archive leaves them out.
    /// Symbolic links on the way are those of the image: of this layer, or where it has nothing of that name, of the layers below.
    pub(crate) fn parent(&mut self, path: &Path, of: &Path) -> Result<(OwnedFd, PathBuf), UnpackError> {
        let escape = || UnpackError::Escape { name: of.to_owned(), how: "a symbolic link" };
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        if let Ok(fd) = open_folder(self.root.as_fd(), path) {
            return Ok((fd, path.to_owned()));
        }
        let mut at = PathBuf::new();
        let mut rest: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let mut links = 0;
        while let Some(component) = rest.pop_front() {
            if component == ".." {
                if !at.pop() {
                    return Err(escape());
                }
                continue;
            }
            let next = at.join(&component);
            let Some(target) = self.step(&at, &component, of)? else {
                at = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(failed(Errno::LOOP));
            }
            if target.is_absolute() {
                at.clear();
            }
            for part in target.components().rev() {
                match part {
                    Component::Normal(part) => rest.push_front(part.to_owned()),
                    Component::ParentDir => rest.push_front("..".into()),
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
        }
        Ok((open_folder(self.root.as_fd(), &at).map_err(failed)?, at))
    }

    /// One folder further, which is made if need be; or where it leads, if it is a symbolic link.
    fn step(&mut self, at: &Path, component: &OsStr, of: &Path) -> Result<Option<PathBuf>, UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        let above = open_folder(self.root.as_fd(), at).map_err(failed)?;
        let next = at.join(component);
        match here(above.as_fd(), component).map_err(failed)? {
            Here::Folder => {}
            Here::File => return Err(failed(Errno::NOTDIR)),
            Here::Mark => {
                opaque_folder(above.as_fd(), component).map_err(failed)?;
                self.folders.push((next, Attributes::implied()));
            }
            Here::Link => {
                let target = read_link(above.as_fd(), component).map_err(failed)?;
                // An archive that writes through its own link to an absolute path is after somebody's files.
                if target.is_absolute() {
                    return Err(UnpackError::Escape { name: of.to_owned(), how: "a symbolic link" });
                }
                return Ok(Some(target));
            }
            Here::Nothing => {
                let attributes = match below::find(&self.lower, &next) {
                    Some(Found::Link(target, _)) => return Ok(Some(target)),
                    Some(Found::Folder(stat)) => Attributes::of(&stat),
                    _ => Attributes::implied(),
                };
                mkdirat(&above, component, Mode::from_raw_mode(0o700)).map_err(failed)?;
                self.folders.push((next, attributes));
            }
        }
        Ok(None)
    }
}
