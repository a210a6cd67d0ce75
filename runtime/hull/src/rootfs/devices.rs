//! Device nodes and the fixed links of /dev.

use std::os::fd::{AsFd as _, OwnedFd};

use hull_sys::mount::{MountAttr, PRIVATE, mount_setattr};
use hull_sys::process::{CloneOptions, Cloned, FILES, clone_process, exit};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{DupFlags, Errno};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::mounts::move_onto;
use super::resolve::{Root, device_of};
use crate::error::{Code, Context, Error, Result};
use crate::spec::{Device, IdMapping, Linux};

/// Name and number of the devices every container has.
pub(crate) const DEFAULTS: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// A node to make.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) path: String,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
    /// The host's node, where making one is not allowed.
    host: Option<OwnedFd>,
    /// The process itself opens the host's node, because the runtime had no right to.
    late: bool,
}

impl Node {
    pub(crate) fn raw_fd(&self) -> Option<i32> {
        use std::os::fd::AsRawFd as _;
        self.host.as_ref().map(|fd| fd.as_raw_fd())
    }
}

/// Decides how each node is made; with `bind`, the process may make none: the runtime makes those that are configured, and opens the host's.
pub(crate) fn prepare(linux: &Linux, bind: bool) -> Result<Vec<Node>> {
    let configured = &linux.devices;
    let mut nodes: Vec<Node> = Vec::with_capacity(DEFAULTS.len().saturating_add(configured.len()));
    for (path, major, minor) in DEFAULTS {
        if configured.iter().any(|d| d.path == *path) {
            continue;
        }
        let number = rustix::fs::makedev(*major, *minor);
        nodes.push(Node {
            path: (*path).to_owned(),
            kind: FileType::CharacterDevice,
            number,
            mode: 0o666,
            owner: (0, 0),
            host: None,
            late: false,
        });
    }
    let defaults = nodes.len();
    for (index, device) in configured.iter().enumerate() {
        nodes.push(configured_node(index, device)?);
    }
    if bind {
        if crate::rights::rule_the_host() {
            make_apart(nodes.get_mut(defaults..).unwrap_or(&mut []), linux)?;
        }
        for node in nodes.iter_mut().filter(|node| node.host.is_none()) {
            match host_node(node) {
                Ok(host) => node.host = Some(host),
                Err(error) if error.errno() == Some(Errno::PERM) => node.late = true,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(nodes)
}

fn configured_node(index: usize, device: &Device) -> Result<Node> {
    let invalid = |field: &str, what: &str| {
        Error::invalid(format!("linux.devices[{index}].{field}"), format!("linux.devices {}: {what}", device.path))
    };
    if !device.path.starts_with('/') {
        return Err(invalid("path", "the path must be absolute"));
    }
    let kind = match device.r#type.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return Err(invalid("type", "the type must be one of c, b, u and p")),
    };
    let number = if kind == FileType::Fifo {
        0
    } else {
        let part = |field: &str, n: i64| {
            u32::try_from(n).map_err(|_| invalid(field, "major and minor must be numbers from 0 on"))
        };
        rustix::fs::makedev(part("major", device.major)?, part("minor", device.minor)?)
    };
    let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
    Ok(Node { path: super::resolve::clean(&device.path), kind, number, mode, owner, host: None, late: false })
}

/// A detached mount of the host's node, checked to be the right device. It is private: a device has no submounts to share, and CRIU takes two
/// slaves of one mount for copies of each other, which two devices are not.
fn host_node(node: &Node) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    let tree = rustix::mount::open_tree(CWD, node.path.as_str(), flags).context(Code::Device, &node.path)?;
    if device_of(&tree) != Ok((node.kind, node.number)) {
        return Err(Error::new(Code::Device, node.path.as_str()).hint("the host's node of that path is another device"));
    }
    let private = MountAttr { propagation: PRIVATE, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), c"", &private).context(Code::Device, &node.path)?;
    Ok(tree)
}

/// Makes the nodes of a user namespace, with their owners and modes, in a file system of their own: the host's nodes have the host's owners,
/// and need not be there. A node with an owner that has no map is left to be the host's.
///
/// A helper does it, in a mount namespace of its own, since a node can be cloned from an attached file system only (before Linux 6.15); it
/// shares the descriptors with the runtime, and ends.
fn make_apart(nodes: &mut [Node], linux: &Linux) -> Result<()> {
    let mapped =
        |node: &Node| Some((map_out(&linux.uid_mappings, node.owner.0)?, map_out(&linux.gid_mappings, node.owner.1)?));
    let mut places: Vec<(&mut Node, (u32, u32), OwnedFd)> = Vec::new();
    for node in nodes {
        if let Some(owner) = mapped(node) {
            places.push((node, owner, open_root().context(Code::Device, "/")?));
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    let options = CloneOptions { flags: hull_sys::namespace::MOUNT | FILES, cgroup: None };
    let (pid, pidfd) = match clone_process(&options).doing(Code::Clone, "clone3", "a process for devices")? {
        Cloned::Child => {
            exit(fill(&mut places, linux.mount_label.as_deref()).map_or_else(|e| e.raw_os_error(), |()| 0))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).context(Code::Device, "helper")?;
    match status.and_then(|s| s.exit_status()) {
        Some(0) => {}
        // Without the right to make devices, the host's have to do.
        Some(errno) if errno == Errno::PERM.raw_os_error() => return Ok(()),
        Some(errno) => return Err(Error::os(Code::Device, "linux.devices", Errno::from_raw_os_error(errno))),
        None => {
            let sentence = format!("linux.devices: the process {pid} that makes them was killed");
            return Err(Error::new(Code::Device, "linux.devices").says(sentence));
        }
    }
    for (node, _, tree) in places {
        node.host = Some(tree);
    }
    Ok(())
}

/// An id of the container as the host has it.
fn map_out(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|m| {
        let offset = id.checked_sub(m.container_id).filter(|offset| *offset < m.size)?;
        m.host_id.checked_add(offset)
    })
}

fn open_root() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Puts a detached mount of each new node in its place; with the label of the container's mounts, or SELinux would deny the nodes.
fn fill(places: &mut [(&mut Node, (u32, u32), OwnedFd)], label: Option<&str>) -> Result<(), Errno> {
    let private = MountAttr { propagation: PRIVATE, recursive: true, ..MountAttr::default() };
    let root = open_root()?;
    mount_setattr(root.as_fd(), c"", &private)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(label) = label.filter(|label| !label.is_empty()) {
        rustix::mount::fsconfig_set_string(&context, "context", label)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let files = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&files, "", &root, "", onto)?;
    for (index, (node, owner, place)) in places.iter_mut().enumerate() {
        let name = index.to_string();
        let mode = Mode::from_raw_mode(node.mode);
        rustix::fs::mknodat(&files, &name, node.kind, mode, node.number)?;
        let owner = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::chownat(&files, &name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        // The caller's umask took bits away.
        rustix::fs::chmodat(&files, &name, mode, AtFlags::empty())?;
        let tree =
            rustix::mount::open_tree(&files, &name, OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE)?;
        rustix::io::dup3(&tree, place, DupFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Makes a node.
pub(crate) fn make(root: &Root, node: &Node) -> Result<()> {
    let path = node.path.as_str();
    let late = if node.late { Some(host_node(node)?) } else { None };
    if let Some(host) = node.host.as_ref().or(late.as_ref()) {
        let target = root.make_file(path).context(Code::Device, path)?;
        if device_of(&target) == Ok((node.kind, node.number)) {
            return Ok(());
        }
        return move_onto(host, &target, path);
    }
    let (parent, name) = root.parent_of(path).context(Code::Device, path)?;
    make_in(&parent, name, node).context(Code::Device, path)
}

/// Makes a node in an open directory.
pub(crate) fn make_in(parent: &OwnedFd, name: &str, node: &Node) -> Result<(), Errno> {
    match rustix::fs::mknodat(parent, name, node.kind, Mode::from_raw_mode(node.mode), node.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            return if device_of(&there)? == (node.kind, node.number) { Ok(()) } else { Err(Errno::EXIST) };
        }
        Err(e) => return Err(e),
    }
    if node.owner != (0, 0) {
        let owner = (rustix::fs::Uid::from_raw(node.owner.0), rustix::fs::Gid::from_raw(node.owner.1));
        rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Makes all nodes and links; /dev itself must not be a symlink.
pub(crate) fn make_all(root: &Root, nodes: &[Node]) -> Result<()> {
    let dev = match root.open_no_symlinks("/dev") {
        Err(Errno::NOENT) => root.make_dirs("/dev", Mode::from_raw_mode(0o755)),
        other => other,
    }
    .map_err(|e| {
        Error::os(Code::Device, "/dev", e).hint("it must be a directory of the root file system, not a symlink")
    })?;
    for node in nodes {
        match node.path.strip_prefix("/dev/") {
            Some(name) if node.host.is_none() && !node.late && !name.contains('/') => {
                make_in(&dev, name, node).context(Code::Device, &node.path)?;
            }
            _ => make(root, node)?,
        }
    }
    links(&dev)
}

fn links(dev: &OwnedFd) -> Result<()> {
    const LINKS: &[(&str, &str)] = &[
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    let link = |target: &str, name: &str| match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::os(Code::Device, format!("/dev/{name}"), e)),
    };
    for (target, name) in LINKS {
        link(target, name)?;
    }
    if rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        link("/proc/kcore", "core")?;
    }
    match rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(Error::os(Code::Device, "/dev/ptmx", e)),
    }
    link("pts/ptmx", "ptmx")
}
