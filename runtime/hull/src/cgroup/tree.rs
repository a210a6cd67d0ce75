//! Walking down cgroup trees: processes inside, controllers on the way, removal from the leaves up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::layout::MOUNT_POINT;
use super::{open_directory, v2};
use crate::error::{Code, Context, Error, Result};
use crate::files;

pub(super) fn collect_processes(dir: BorrowedFd<'_>, out: &mut Vec<i32>) -> Result<(), Errno> {
    match files::read_text_at(dir, "cgroup.procs", 16 << 20) {
        Ok(text) => out.extend(text.lines().filter_map(files::parse_unsigned::<i32>)),
        // A threaded group.
        Err(Errno::OPNOTSUPP) => {}
        // Removed meanwhile, for example by systemd, which does that as soon as a unit is empty.
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(e) => return Err(e),
    }
    for_each_child(dir, &mut |_, child| collect_processes(child.as_fd(), out))
}

pub(super) fn for_each_child(
    dir: BorrowedFd<'_>,
    f: &mut dyn FnMut(&str, OwnedFd) -> Result<(), Errno>,
) -> Result<(), Errno> {
    // A group without sub-groups has exactly two links: no need to list it.
    if rustix::fs::fstat(dir)?.st_nlink == 2 {
        return Ok(());
    }
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_type() != rustix::fs::FileType::Directory {
            continue;
        }
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::openat(
            dir,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(child) => f(name, child)?,
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

pub(super) fn enable_down_to(path: &str) -> Result<()> {
    let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
    let below = parent.strip_prefix(MOUNT_POINT).unwrap_or("");
    let mut at = String::from(MOUNT_POINT);
    let parts = std::iter::once("").chain(below.split('/').filter(|p| !p.is_empty()));
    for part in parts {
        if !part.is_empty() {
            at.push('/');
            at.push_str(part);
        }
        let dir = open_directory(&at).context(Code::CgroupCreate, &at)?;
        match v2::enable_controllers(&dir) {
            Ok(()) => {}
            // Above a delegated part the user may not write; what counts is that the controllers are available below.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {}
            Err(e) => {
                return Err(Error::os(Code::CgroupCreate, format!("{at}/cgroup.subtree_control"), e)
                    .says(format!("{at}: cgroup.subtree_control"))
                    .hint("a group that holds processes cannot pass controllers on"));
            }
        }
    }
    Ok(())
}

/// Removes a cgroup and its sub-groups.
pub(crate) fn remove_tree(path: &str) -> Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(e) => return Err(Error::os(Code::CgroupRemove, path, e)),
    }
    let Ok(dir) = open_directory(path) else { return Ok(()) };
    remove_children(&dir).context(Code::CgroupRemove, path)?;
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::os(Code::CgroupRemove, path, e)),
    }
}

fn remove_children(dir: &OwnedFd) -> Result<(), Errno> {
    for_each_child(dir.as_fd(), &mut |name, child| {
        remove_children(&child)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e),
        }
    })
}
