//! Masked and read-only paths.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::{self as sysmount, MountAttr, mount_setattr};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::mounts::{move_onto, new_filesystem};
use super::options::MountOptions;
use super::resolve::{Root, clean, device_of};
use crate::error::{Code, Context, Error, Result};

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Makes a path read-only by a read-only clone of itself (with what is mounted below) on top.
pub(crate) fn read_only(root: &Root, path: &str) -> Result<()> {
    if clean(path) == "/" {
        // A clone on top of the root would not be seen: it is the root mount itself that changes, as with `root.readonly`.
        return super::make_read_only(root.fd(), path);
    }
    let Some(target) = open(root, path)? else { return Ok(()) };
    let flags = CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&target, "", flags).context(Code::Mask, path)?;
    let attr = MountAttr { set: sysmount::ATTR_RDONLY, recursive: true, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), c"", &attr).context(Code::Mask, path)?;
    move_onto(&tree, &target, path)
}

fn open(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    match root.open(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(Error::os(Code::Mask, path, e)),
    }
}

/// Covers paths; one empty read-only tmpfs serves all directories, the host's verified /dev/null all files.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    directory: Option<OwnedFd>,
}

impl Masker {
    pub(crate) fn mask(&mut self, root: &Root, path: &str) -> Result<()> {
        let Some(target) = open(root, path)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).context(Code::Mask, path)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let tree = self.empty_directory(path)?;
            move_onto(&tree, &target, path)
        } else {
            let tree = rustix::mount::open_tree(CWD, "/dev/null", CLONE).context(Code::Mask, path)?;
            if device_of(&tree) != Ok((FileType::CharacterDevice, rustix::fs::makedev(1, 3))) {
                return Err(Error::new(Code::Mask, path).hint("/dev/null of the host is not the null device"));
            }
            move_onto(&tree, &target, path)
        }
    }

    fn empty_directory(&mut self, path: &str) -> Result<OwnedFd> {
        if let Some(first) = &self.directory {
            let flags = CLONE | OpenTreeFlags::AT_EMPTY_PATH;
            return rustix::mount::open_tree(first, "", flags).context(Code::Mask, path);
        }
        let mut options = MountOptions { set: sysmount::ATTR_RDONLY, ..MountOptions::default() };
        options.data.push(("nr_blocks".to_owned(), Some("1".to_owned())));
        options.data.push(("nr_inodes".to_owned(), Some("2".to_owned())));
        let tree = new_filesystem("tmpfs", Some("tmpfs"), &options, path)
            .map_err(|e| Error::os(Code::Mask, path, e.errno().unwrap_or(Errno::IO)))?;
        let again = rustix::io::fcntl_dupfd_cloexec(&tree, 3).context(Code::Mask, path)?;
        self.directory = Some(again);
        Ok(tree)
    }
}
