//! Id-mapped mounts: the id map of a user namespace applied to detached trees.
//!
//! The runtime does it, because it needs rights over the file system's own user namespace; the trees are shared with the container's process
//! by descriptor.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::{ATTR_IDMAP, MountAttr, mount_setattr};
use hull_sys::namespace as ns;
use hull_sys::process::{CloneOptions, Cloned, clone_process, exit};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::maps;
use crate::error::{Code, Context, Error, Result};
use crate::rootfs::mounts::{Prepared, Source};
use crate::rootfs::options::IdMap;
use crate::spec::{IdMapping, Linux, NamespaceType};

/// Maps the ids of all mounts that ask for it; `pid` is in the container's user namespace.
pub(super) fn apply(mounts: &[Prepared], pid: i32, linux: &Linux) -> Result<()> {
    for mount in mounts.iter().filter(|m| m.wants_id_map()) {
        let at = &mount.destination;
        let Source::Tree(tree) = &mount.source else {
            let text = format!("mount {at}: ids can be mapped on bind mounts made by root only");
            return Err(Error::new(Code::Unsupported, at.as_str()).says(text));
        };
        let userns = if !mount.uid_mappings.is_empty() {
            user_namespace(&mount.uid_mappings, &mount.gid_mappings)?
        } else if linux.namespaces.iter().any(|n| n.r#type == NamespaceType::User) {
            open_userns(pid)?
        } else {
            return Err(Error::invalid(at.as_str(), format!("mount {at}: there is no map for its ids"))
                .hint("give uidMappings and gidMappings, or a user namespace, whose maps it then has"));
        };
        let recursive = mount.options.idmap == Some(IdMap::Recursive);
        let attr = MountAttr { set: ATTR_IDMAP, userns: Some(userns.as_fd()), recursive, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), c"", &attr).map_err(|e| {
            Error::os(Code::MountAttr, at.as_str(), e)
                .says(format!("{at}: mapping its ids"))
                .hint("the file system must support id-mapped mounts, and may not be mapped already")
        })?;
    }
    Ok(())
}

fn open_userns(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(Code::IdMap, &path)
}

/// A user namespace with these maps; it lives as long as its descriptor.
pub(super) fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let linux = Linux { uid_mappings: uids.to_vec(), gid_mappings: gids.to_vec(), ..Linux::default() };
    match clone_process(&CloneOptions { flags: ns::USER, cgroup: None }).doing(Code::Clone, "user", "for an id map")? {
        Cloned::Child => {
            // Only its namespace is needed; it ends by the runtime's signal, or with the runtime.
            let _ = hull_sys::prctl::set_parent_death_signal(9);
            loop {
                let _ = rustix::event::poll(&mut [], None);
                if rustix::process::getppid().is_none() {
                    exit(0);
                }
            }
        }
        Cloned::Parent { pid, pidfd } => {
            let result = maps::write(pid, &linux).and_then(|_| open_userns(pid));
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            result
        }
    }
}
