//! Running from a file that a container cannot write to.
//!
//! A process of the container may get at the runtime's binary: it executes `/proc/self/exe`, or opens `/proc/<pid>/exe` of a runtime that
//! enters the container (CVE-2019-5736). If its user could write to that file, the runtime first re-executes itself from a read-only clone of
//! its mount, which costs no copy; without the right to clone mounts, from a sealed copy in memory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use hull_sys::config::names_user_namespace;
use hull_sys::mount::{ATTR_RDONLY, MountAttr, mount_setattr};
use hull_sys::process::{StringVector, execveat};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{Linux, NamespaceType};

const SELF: &str = "/proc/self/exe";

/// Ensures that before the configuration is parsed; if the runtime has to re-execute itself, this does not return. False if the answer
/// depends on the configuration: then [`protect`] decides.
///
/// Re-executing costs a third of a start if everything up to here is done twice, so it comes first of all.
pub(crate) fn protect_early(json: &[u8]) -> Result<bool> {
    if hull_sys::own_clone::is_kept() {
        return Ok(true);
    }
    if names_user_namespace(json) {
        return Ok(false);
    }
    protect(None)?;
    Ok(true)
}

/// Ensures that; if the runtime has to re-execute itself, this does not return.
pub(crate) fn protect(linux: Option<&Linux>) -> Result<()> {
    let exe = rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(Code::Internal, SELF)?;
    if is_protected(&exe) || !container_could_write(&exe, linux)? {
        return Ok(());
    }
    let program = read_only(&exe, "the runtime's own binary")?;
    let nul = |_| Error::new(Code::Internal, "argv");
    let argv = StringVector::new(std::env::args_os().map(|a| a.as_bytes().to_vec())).map_err(nul)?;
    let envp = StringVector::new(std::env::vars_os().map(|(key, value)| {
        let mut out = key.as_bytes().to_vec();
        out.push(b'=');
        out.extend_from_slice(value.as_bytes());
        out
    }))
    .map_err(nul)?;
    let errno = execveat(program.as_fd(), &argv, &envp);
    Err(Error::os(Code::Internal, SELF, errno).says("executing the runtime again from a protected file"))
}

/// Opens another program of ours that will run inside the container, protected in the same way.
pub(crate) fn open_program(path: &str, linux: Option<&Linux>) -> Result<OwnedFd> {
    let program = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(Code::Exec, path)?;
    if container_could_write(&program, linux)? { read_only(&program, path) } else { Ok(program) }
}

/// A descriptor of a file of ours to leave with a container: opening it anew through /proc never gives a writable one.
pub(crate) fn read_only_file(file: &OwnedFd) -> Result<OwnedFd> {
    let handle = read_only(file, "/proc/self/fd")?;
    rustix::fs::open(through_proc(&handle), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(
        Code::Internal,
        SELF,
        "opening a file read-only",
    )
}

/// A handle of the file that leads to no writable descriptor.
fn read_only(file: &OwnedFd, what: &str) -> Result<OwnedFd> {
    match read_only_clone(file) {
        Ok(handle) => Ok(handle),
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => {
            sealed_copy(file).doing(Code::Internal, what, &format!("copying {what}"))
        }
        Err(e) => Err(Error::os(Code::Internal, what, e).says(format!("cloning the mount of {what}"))),
    }
}

fn through_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
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
        // A namespace made by others: its map decides.
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
    /// The file system of memory files, whatever their mount is called.
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let read_only = rustix::fs::fstatvfs(exe).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only
        || rustix::fs::fstatfs(exe).is_ok_and(|s| s.f_type == TMPFS_MAGIC)
            // Only a memory file answers this question; a path handle has to be opened for it.
            && rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(rustix::fs::fcntl_get_seals)
                .is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn read_only_clone(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(file, "", flags)?;
    mount_setattr(tree.as_fd(), c"", &MountAttr { set: ATTR_RDONLY, ..MountAttr::default() })?;
    Ok(tree)
}

fn sealed_copy(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let source = rustix::fs::open(through_proc(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 want to be told that it will be executed; older ones refuse the flag.
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
