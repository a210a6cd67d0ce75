//! `berth-init rootfs`: the helper process itself. Started as the host's root with a socket as standard input.
//!
//! Two processes share the work. The *mapper* stays the host's root: it writes the id maps and makes the id-mapped clones, which only the
//! host's root may. The *owner*, its child, becomes the workspace's first uid, creates the user namespace, and mounts the overlay inside it.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use hull_sys::sandbox_mount::idmap_detached;
use hull_sys::sandbox_process::{close_inherited_from, fork, unshare_namespaces};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{Request, Response};
use crate::message;

/// A step that failed, for [`Response::Failed`].
struct Failure {
    step: String,
    errno: Errno,
}

trait Step<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure { step: what(), errno })
    }
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure { step: what(), errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) })
    }
}

/// Runs the role: one request from standard input, one answer, end. Returns the exit status.
pub fn main() -> i32 {
    close_inherited_from(3);
    let socket = std::io::stdin();
    let request: Request = match message::receive(socket.as_fd()) {
        Ok((request, _)) => request,
        Err(_) => return 2,
    };
    let started = Instant::now();
    match build(&request) {
        Ok((mount, userns)) => {
            let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            let fds = [mount.as_fd(), userns.as_fd()];
            i32::from(message::send(socket.as_fd(), &Response::Built { elapsed_us }, &fds).is_err())
        }
        Err(Failure { step, errno }) => {
            let failed = Response::Failed { step, errno: errno.raw_os_error() };
            i32::from(message::send(socket.as_fd(), &failed, &[]).is_err()) | 1
        }
    }
}

fn build(request: &Request) -> Result<(OwnedFd, OwnedFd), Failure> {
    unshare_namespaces(UnshareFlags::NEWNS)
        .step(|| "make a private mount namespace (is this the host's root?)".to_owned())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step(|| "cut the private mount namespace off from the host's".to_owned())?;

    let (ours, theirs) =
        message::pair().map_err(|_| Failure { step: "make a socket pair".to_owned(), errno: Errno::MFILE })?;
    let mut ours = Some(ours);
    let owner = fork(|| {
        // With a copy of the other end here, the mapper's death would not be noticed.
        drop(ours.take());
        let failed = match own(request, &theirs) {
            Ok(()) => return 0,
            Err(Failure { step, errno }) => Response::Failed { step, errno: errno.raw_os_error() },
        };
        i32::from(message::send(&theirs, &failed, &[]).is_err()) | 1
    })
    .step(|| "fork the helper".to_owned())?;
    // The fork has its own copy; with this one open its death would not be noticed.
    drop(theirs);
    let built = match ours {
        Some(ours) => map(request, owner.as_raw_nonzero().get(), ours),
        None => Err(Failure { step: "make a socket pair".to_owned(), errno: Errno::BADF }),
    };
    if built.is_err() {
        let _ = kill_process(owner, Signal::KILL);
    }
    let _ = waitpid(Some(owner), WaitOptions::empty());
    built
}

/// The mapper's part.
fn map(request: &Request, owner: i32, ours: OwnedFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    // The owner has unshared when this arrives; until the maps are there it can do nothing.
    from_owner(&ours)?;
    for (file, base) in [("uid_map", request.uid_base), ("gid_map", request.gid_base)] {
        let path = format!("/proc/{owner}/{file}");
        let line = format!("0 {base} {}\n", request.id_count);
        // One write: the kernel takes the map whole and once.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .step(|| format!("write {path} for the range {base}+{}", request.id_count))?;
    }
    let userns = rustix::fs::open(format!("/proc/{owner}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the user namespace".to_owned())?;

    let mut clones = Vec::with_capacity(request.layers.len());
    for layer in &request.layers {
        clones.push(mapped_clone(layer, userns.as_fd(), true)?);
    }
    let disk = mapped_clone(&request.disk, userns.as_fd(), false)?;

    // All paths are resolved: what this covers is not needed any more, and nobody else sees it.
    let stage = stage(&request.disk)?;
    for (index, clone) in clones.iter().enumerate() {
        attach(clone.as_fd(), stage.as_fd(), &layer_name(index))?;
    }
    attach(disk.as_fd(), stage.as_fd(), "disk")?;
    message::send(&ours, &(), &[stage.as_fd()])
        .map_err(|_| Failure { step: "talk to the helper's other half".to_owned(), errno: Errno::PIPE })?;
    let mount = from_owner(&ours)?.ok_or_else(|| Failure { step: "get the mount".to_owned(), errno: Errno::BADMSG })?;
    Ok((mount, userns))
}

/// What the owner reports: an error, or success together with the mount.
fn from_owner(ours: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    match message::receive::<Response>(ours) {
        Ok((Response::Built { .. }, fds)) => Ok(fds.into_iter().next()),
        Ok((Response::Failed { step, errno }, _)) => Err(Failure { step, errno: Errno::from_raw_os_error(errno) }),
        Err(_) => Err(Failure { step: "the helper's other half died".to_owned(), errno: Errno::PIPE }),
    }
}

/// A detached clone of the mount at `path` that shows its owners through the user namespace.
fn mapped_clone(path: &Path, userns: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let clone = open_tree(CWD, path, flags).step(|| format!("clone the mount at {}", path.display()))?;
    idmap_detached(clone.as_fd(), userns, read_only)
        .step(|| format!("id-map {} (does its file system support it?)", path.display()))?;
    Ok(clone)
}

/// A small tmpfs, over the disk's directory in our own mount namespace, for mount points.
fn stage(over: &Path) -> Result<OwnedFd, Failure> {
    let what = || "make the staging directory".to_owned();
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step(what)?;
    fsconfig_set_string(context.as_fd(), "mode", "0755").step(what)?;
    fsconfig_create(context.as_fd()).step(what)?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).step(what)?;
    move_mount(&mount, "", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)?;
    // The mount's own descriptor is its root directory.
    Ok(mount)
}

fn attach(clone: BorrowedFd<'_>, stage: BorrowedFd<'_>, name: &str) -> Result<(), Failure> {
    rustix::fs::mkdirat(stage, name, Mode::from_raw_mode(0o755)).step(|| format!("make the mount point {name}"))?;
    move_mount(clone, "", stage, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(|| format!("attach the layer {name}"))
}

/// A string for `fsconfig` has fewer bytes than this (`strndup_user` in fs/fsopen.c).
const LONGEST_STRING: usize = 256;

/// Short, so that the names of 90 layers fit in one string, and without `:`.
fn layer_name(index: usize) -> String {
    format!("{index:x}")
}

/// The owner's part: ends with the mount sent to the mapper.
fn own(request: &Request, mapper: &OwnedFd) -> Result<(), Failure> {
    let talk = |_| Failure { step: "talk to the helper's other half".to_owned(), errno: Errno::PIPE };
    let gid = rustix::process::Gid::from_raw(request.gid_base);
    let uid = rustix::process::Uid::from_raw(request.uid_base);
    set_thread_groups(&[]).step(|| "drop the host's groups".to_owned())?;
    set_thread_res_gid(gid, gid, gid).step(|| format!("become the group {}", request.gid_base))?;
    // CAP_SYS_ADMIN stays until the namespace is made: some distributions let only its holders make one.
    set_keep_capabilities(true).step(|| "keep capabilities".to_owned())?;
    set_thread_res_uid(uid, uid, uid).step(|| format!("become the user {}", request.uid_base))?;
    let only = CapabilitySet::SYS_ADMIN;
    set_capabilities(None, CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() })
        .step(|| "keep CAP_SYS_ADMIN".to_owned())?;
    unshare_namespaces(UnshareFlags::NEWUSER)
        .step(|| "make a user namespace (see sysctl user.max_user_namespaces)".to_owned())?;
    message::send(mapper, &Response::Built { elapsed_us: 0 }, &[]).map_err(talk)?;

    let (_, fds) = message::receive::<()>(mapper).map_err(talk)?;
    let stage = fds
        .into_iter()
        .next()
        .ok_or_else(|| Failure { step: "get the staging directory".to_owned(), errno: Errno::BADMSG })?;
    // Before the new mount namespace: the kernel carries the working directory over to the namespace's own copy of the mount. By path it
    // could not be reached, the folders above it are the host root's.
    rustix::process::fchdir(&stage).step(|| "enter the staging directory".to_owned())?;
    drop(stage);
    unshare_namespaces(UnshareFlags::NEWNS).step(|| "make the workspace's mount namespace".to_owned())?;
    let mount = overlay(request)?;
    furnish(mount.as_fd())?;
    message::send(mapper, &Response::Built { elapsed_us: 0 }, &[mount.as_fd()]).map_err(talk)
}

fn overlay(request: &Request) -> Result<OwnedFd, Failure> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step(|| "open the overlay file system".to_owned())?;
    let fd = context.as_fd();
    let set = |key: &str, value: &str| {
        fsconfig_set_string(fd, key, value).step(|| format!("set overlay's {key} to {value}{}", complaint(fd)))
    };
    fsconfig_set_flag(fd, "userxattr").step(|| "set overlay's userxattr".to_owned())?;
    let names: Vec<String> = (0..request.layers.len()).map(layer_name).collect();
    let joined = names.join(":");
    if joined.len() < LONGEST_STRING {
        set("lowerdir", &joined)?;
    } else {
        // Came with Linux 6.7. Kernels before 6.5 take any key here and complain when they mount, so it cannot be tried first.
        for name in &names {
            set("lowerdir+", name)?;
        }
    }
    set("upperdir", &format!("disk/{}", request.upper))?;
    set("workdir", &format!("disk/{}", request.work))?;
    fsconfig_create(fd).step(|| format!("mount the overlay of {} layers{}", names.len(), complaint(fd)))?;
    fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).step(|| "take the overlay's mount".to_owned())
}

/// What every program expects, and some images leave out: a place for temporary files, and root's home.
const FURNITURE: [(&str, u32); 2] = [("tmp", 0o1777), ("root", 0o700)];

fn furnish(root: BorrowedFd<'_>) -> Result<(), Failure> {
    for (name, mode) in FURNITURE {
        let what = || format!("make /{name}, which the image leaves out");
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::mkdirat(root, name, mode) {
            // Whatever it is, it is the image's or the user's. On a disk that is full a workspace starts without, to be tidied up.
            Err(Errno::EXIST | Errno::NOSPC | Errno::DQUOT) => {}
            // Our umask does not count.
            Ok(()) => rustix::fs::chmodat(root, name, mode, AtFlags::empty()).step(what)?,
            Err(errno) => return Err(errno).step(what),
        }
    }
    Ok(())
}

/// What the kernel wrote about a failed configuration step, if anything.
fn complaint(context: BorrowedFd<'_>) -> String {
    let Ok(copy) = context.try_clone_to_owned() else { return String::new() };
    let mut text = Vec::new();
    let mut file = std::fs::File::from(copy).take(1024);
    // Each read gives one message; the end is ENODATA.
    let _ = file.read_to_end(&mut text);
    match CString::new(text) {
        Ok(text) if !text.is_empty() => format!(" ({})", text.to_string_lossy().trim()),
        _ => String::new(),
    }
}
