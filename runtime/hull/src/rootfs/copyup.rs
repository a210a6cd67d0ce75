//! `tmpcopyup`: what the root file system has at the mount point is copied into the new tmpfs.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::resolve::Root;
use crate::error::{Code, Context, Error, Result};
use crate::files;

/// How deep directories may nest.
const MAX_DEPTH: u32 = 200;

pub(super) fn copy_tree(root: &Root, at: &str, tmpfs: &OwnedFd) -> Result<()> {
    let from = root.open_flags(at, OFlags::RDONLY | OFlags::DIRECTORY).context(Code::Mount, at)?;
    let to = rustix::fs::openat(tmpfs, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(Code::Mount, at)?;
    copy_directory(&from, &to, 0)
        .map_err(|e| Error::os(Code::Mount, at, e).says(format!("tmpfs on {at}: copying the files that are there")))
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                copy_directory(&open_beneath(from, name)?, &open_beneath(to, name)?, depth.saturating_add(1))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            }
            FileType::RegularFile => copy_file(from, to, name, mode)?,
            _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        match rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW) {
            // An owner outside the user namespace's range cannot be given.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn open_beneath(dir: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr, mode: Mode) -> Result<(), Errno> {
    let source = rustix::fs::openat(
        from,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    // It may have been swapped for another, an endless device for one.
    if !FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode).is_file() {
        return Err(Errno::AGAIN);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to, name, flags, mode)?;
    let mut chunk = vec![0u8; 65536];
    loop {
        match rustix::io::read(&source, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => files::write_all(&target, chunk.get(..n).unwrap_or(&[]))?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}
