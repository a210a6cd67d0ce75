//! The container's view of its cgroups at `/sys/fs/cgroup`.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::{self as sysmount, MountAttr, mount_setattr};
use rustix::fs::{AtFlags, CWD, Mode};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::mounts::{MountContext, move_onto, new_filesystem};
use super::options::MountOptions;
use crate::cgroup::layout::MOUNT_POINT;
use crate::error::{Code, Context, Error, Result};
use crate::procfs::Proc;

/// One version 1 hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    /// Directory name below `/sys/fs/cgroup`.
    pub(crate) name: String,
    /// Controllers, or `name=…`.
    pub(crate) controllers: Vec<String>,
    /// The container's directory on the host.
    pub(crate) path: String,
}

/// What to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Version 1 hierarchies; empty on a version 2 host.
    pub(crate) v1: Vec<Hierarchy>,
    /// The container's version 2 directory on the host.
    pub(crate) v2: Option<String>,
    /// Whether the container has a cgroup namespace.
    pub(crate) namespace: bool,
}

/// Shows the container its hierarchies; if `unified`, that of version 2 alone, which may be beside those of version 1.
pub(super) fn mount(cx: &mut MountContext<'_>, at: &str, options: &MountOptions, unified: bool) -> Result<()> {
    let target = cx.root.make_dirs(at, Mode::from_raw_mode(0o755)).context(Code::MountTarget, at)?;
    let view = cx.cgroup;
    if view.v1.is_empty() {
        return mount_v2(cx, at, &target, options);
    }
    if unified {
        let text = "cgroup2: there is no cgroup of version 2 here";
        let own = view.v2.as_ref().ok_or_else(|| Error::new(Code::Mount, at).says(text))?;
        return move_onto(&clone_directory(own, options.set)?, &target, at);
    }
    let read_only = options.set & sysmount::ATTR_RDONLY;
    let mut tmpfs = MountOptions { set: options.set & !read_only, ..MountOptions::default() };
    tmpfs.data.push(("mode".to_owned(), Some("755".to_owned())));
    let tree = new_filesystem("tmpfs", Some("tmpfs"), &tmpfs, at)?;
    // Everything below is made through the new mount's own descriptor.
    move_onto(&tree, &target, at)?;
    for hierarchy in &view.v1 {
        rustix::fs::mkdirat(&tree, hierarchy.name.as_str(), Mode::from_raw_mode(0o755)).context(Code::Mount, at)?;
        // In a cgroup namespace whose roots are the container's directories, a clone of such a directory shows the same as a mount of the
        // hierarchy, and saves the kernel a superblock.
        let mounted = if view.namespace && !cx.own_cgroup_roots {
            let mut fs = MountOptions { set: options.set, ..MountOptions::default() };
            for controller in &hierarchy.controllers {
                match controller.split_once('=') {
                    Some((key, value)) => {
                        fs.data.push(("none".to_owned(), None));
                        fs.data.push((key.to_owned(), Some(value.to_owned())));
                    }
                    None => fs.data.push((controller.clone(), None)),
                }
            }
            new_filesystem("cgroup", Some("cgroup"), &fs, at)?
        } else {
            clone_directory(&hierarchy.path, options.set)?
        };
        // Without MOVE_MOUNT_T_SYMLINKS nothing but the directory itself will do.
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mounted, "", &tree, hierarchy.name.as_str(), flags).context(Code::Mount, at)?;
        if hierarchy.controllers.len() > 1 {
            for controller in &hierarchy.controllers {
                rustix::fs::symlinkat(hierarchy.name.as_str(), &tree, controller.as_str()).context(Code::Mount, at)?;
            }
        }
    }
    if read_only != 0 {
        cx.read_only_later.push(tree);
    }
    Ok(())
}

fn mount_v2(cx: &MountContext<'_>, at: &str, target: &OwnedFd, options: &MountOptions) -> Result<()> {
    let view = cx.cgroup;
    let tree = if view.namespace {
        let proc = cx.proc.map_or_else(Proc::open, Proc::try_clone).context(Code::Mount, "/proc")?;
        // In the machine's first namespace, the options of a new mount become the hierarchy's for everybody (`nsdelegate`, which is dropped
        // unless it is given again).
        let data = if in_first_namespace(&proc) { hierarchy_options(&proc)? } else { Vec::new() };
        new_filesystem("cgroup2", Some("cgroup2"), &MountOptions { data, ..options.clone() }, at)
    } else if view.v2.is_some() {
        // The namespace is the runtime's, so the hierarchy is too, and /proc/self/cgroup names places in it. A clone, because a new mount in
        // the initial namespace would drop `nsdelegate` and other options of the host's.
        clone_directory(MOUNT_POINT, options.set)
    } else {
        clone_host(options.set)
    };
    let tree = match tree {
        Ok(tree) => tree,
        // In a user namespace that does not own the hierarchy: the host's view, read-only.
        Err(error) if error.errno() == Some(rustix::io::Errno::PERM) => {
            clone_directory(view.v2.as_deref().unwrap_or(MOUNT_POINT), options.set | sysmount::ATTR_RDONLY)?
        }
        Err(error) => return Err(error),
    };
    move_onto(&tree, target, at)
}

fn in_first_namespace(proc: &Proc) -> bool {
    const FIRST: u64 = 0xefff_fffb;
    rustix::fs::statat(proc, "self/ns/cgroup", AtFlags::empty()).is_ok_and(|s| s.st_ino == FIRST)
}

/// The options of version 2, which all of its mounts have in common, by a mount that is visible here.
fn hierarchy_options(proc: &Proc) -> Result<Vec<(String, Option<String>)>> {
    let text = proc.read("self/mountinfo", 64 << 20).context(Code::Mount, "/proc/self/mountinfo")?;
    let line = text.lines().find_map(|line| line.split_once(" - cgroup2 "));
    let (_, line) = line.ok_or_else(|| {
        Error::new(Code::Mount, MOUNT_POINT)
            .says("cgroup2 in the machine's first cgroup namespace: it is mounted nowhere here")
            .hint("leave the path of the cgroup namespace out")
    })?;
    let options = line.rsplit(' ').next().unwrap_or_default().split(',');
    Ok(options.filter(|o| !matches!(*o, "rw" | "ro")).map(|o| (o.to_owned(), None)).collect())
}

/// For a container without cgroups of its own: the host's view, all of it read-only.
fn clone_host(set: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, MOUNT_POINT, flags).context(Code::Mount, MOUNT_POINT)?;
    let set = set | sysmount::ATTR_RDONLY;
    let attr = MountAttr { set, propagation: sysmount::PRIVATE, recursive: true, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), c"", &attr).context(Code::MountAttr, MOUNT_POINT)?;
    Ok(tree)
}

fn clone_directory(path: &str, set: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    let tree = rustix::mount::open_tree(CWD, path, flags).context(Code::Mount, path)?;
    let attr = MountAttr { set, propagation: sysmount::PRIVATE, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), c"", &attr).context(Code::MountAttr, path)?;
    Ok(tree)
}
