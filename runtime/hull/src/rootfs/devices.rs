//! Device nodes and the fixed links of /dev.

use std::os::fd::{AsFd as _, OwnedFd};

use hull_sys::mount::{MountAttr, PRIVATE, mount_setattr};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::mounts::move_onto;
use super::resolve::{Root, device_of};
use crate::error::{Code, Context, Error, Result};
use crate::spec::Device;

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

/// Decides how each node is made; with `bind`, opens the host's nodes.
pub(crate) fn prepare(configured: &[Device], bind: bool) -> Result<Vec<Node>> {
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
    for (index, device) in configured.iter().enumerate() {
        nodes.push(configured_node(index, device)?);
    }
    if bind {
        for node in &mut nodes {
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
