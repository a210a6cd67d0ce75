//! Running from a file that a container cannot write to.
//!
//! A process of the container may get at the runtime's binary: it executes `/proc/self/exe`, or opens
//! `/proc/<pid>/exe` of a runtime that enters the container (CVE-2019-5736). Where its user could write to that file,
//! the runtime first executes itself again from a read-only clone of its mount, which costs no copy; without the right
//! to clone mounts, from a sealed copy in memory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use hull_sys::mount::{ATTR_RDONLY, MountAttr, mount_setattr};
use hull_sys::process::{StringVector, execveat};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{Linux, NamespaceType};

const SELF: &str = "/proc/self/exe";

/// Makes sure of it; when it has to execute itself again, this does not return.
pub(crate) fn protect(linux: Option<&Linux>) -> Result<()> {
    let exe = rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(Code::Internal, SELF)?;
    if !container_could_write(&exe, linux)? || is_protected(&exe) {
        return Ok(());
    }
    let program = match read_only_clone() {
        Ok(program) => program,
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => {
            sealed_copy().context(Code::Internal, "copying the runtime's own binary")?
        }
        Err(e) => return Err(Error::os(Code::Internal, "cloning the mount of the runtime's own binary", e)),
    };
    let nul = |_| Error::new(Code::Internal, "command line");
    let argv = StringVector::new(std::env::args_os().map(|a| a.as_bytes().to_vec())).map_err(nul)?;
    let envp = StringVector::new(std::env::vars_os().map(|(key, value)| {
        let mut out = key.as_bytes().to_vec();
        out.push(b'=');
        out.extend_from_slice(value.as_bytes());
        out
    }))
    .map_err(nul)?;
    let errno = execveat(program.as_fd(), &argv, &envp);
    Err(Error::os(Code::Internal, "executing the runtime again from a protected file", errno))
}

/// Whether some id of the container has the right to write to the file.
fn container_could_write(exe: &OwnedFd, linux: Option<&Linux>) -> Result<bool> {
    let stat = rustix::fs::fstat(exe).context(Code::Internal, SELF)?;
    let namespace = linux.and_then(|l| l.namespaces.iter().find(|n| n.r#type == NamespaceType::User));
    let Some(namespace) = namespace else { return Ok(true) };
    if stat.st_mode & 0o022 != 0 {
        return Ok(true);
    }
    let (Some(linux), true) = (linux, namespace.path.as_ref().is_none_or(String::is_empty)) else {
        // A namespace made by others: its map tells.
        let path = namespace.path.as_deref().unwrap_or("");
        return Ok(!joined_map_excludes(path, stat.st_uid));
    };
    Ok(linux.uid_mappings.iter().any(|m| (m.host_id..m.host_id.saturating_add(m.size)).contains(&stat.st_uid)))
}

/// Whether the namespace file belongs to a process whose map, seen from here, lacks the id.
fn joined_map_excludes(path: &str, uid: u32) -> bool {
    let Some(process) = path.strip_suffix("/ns/user").filter(|p| p.starts_with("/proc/")) else { return false };
    let Ok(text) = files::read_text(&format!("{process}/uid_map"), 65536) else { return false };
    let mut any = false;
    for line in text.lines() {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (Some(Some(_)), Some(Some(outside)), Some(Some(count))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        any = true;
        if (outside..outside.saturating_add(count)).contains(&uid) {
            return false;
        }
    }
    any
}

fn is_protected(exe: &OwnedFd) -> bool {
    let read_only = rustix::fs::fstatvfs(exe).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    // Only a memory file answers this question; a path handle has to be opened for it.
    read_only
        || rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(rustix::fs::fcntl_get_seals)
            .is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn read_only_clone() -> Result<OwnedFd, Errno> {
    let tree = rustix::mount::open_tree(CWD, SELF, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(tree.as_fd(), c"", &MountAttr { set: ATTR_RDONLY, ..MountAttr::default() })?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd, Errno> {
    let source = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 want to know that it is meant to be executed; older ones refuse the flag.
    let copy = rustix::fs::memfd_create("hull", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("hull", flags))?;
    let mut left = usize::try_from(rustix::fs::fstat(&source)?.st_size).map_err(|_| Errno::FBIG)?;
    while left > 0 {
        match rustix::fs::sendfile(&copy, &source, None, left)? {
            0 => return Err(Errno::IO),
            n => left = left.saturating_sub(n),
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy)
}
