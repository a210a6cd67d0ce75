//! Gives a version 2 cgroup to the container (config-linux.md, "Cgroup ownership"): root inside may then make groups and pass controllers on
//! below, and still cannot change its own limits.

use rustix::fs::{AtFlags, Uid};
use rustix::io::Errno;

use super::Cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{Linux, NamespaceType, Spec};

/// Files of a group that its owner may write, if the kernel does not list them.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The host's uid that will own the group, if the container is to have it.
fn owner(spec: &Spec, linux: &Linux) -> Option<u32> {
    let makes = |kind| linux.namespaces.iter().any(|n| n.r#type == kind && n.path.as_deref().is_none_or(str::is_empty));
    let writable = spec
        .mounts
        .iter()
        .any(|m| matches!(m.r#type.as_deref(), Some("cgroup" | "cgroup2")) && !m.options.iter().any(|o| o == "ro"));
    if !(makes(NamespaceType::Cgroup) && makes(NamespaceType::User) && writable) {
        return None;
    }
    let uid = spec.process.as_ref().map_or(0, |p| p.user.uid);
    linux.uid_mappings.iter().find_map(|map| {
        let offset = uid.checked_sub(map.container_id).filter(|o| *o < map.size)?;
        map.host_id.checked_add(offset)
    })
}

/// Changes the owner where the configuration asks for it.
pub(crate) fn give(cgroup: &Cgroup, spec: &Spec, linux: &Linux) -> Result<()> {
    let (Some(directory), false) = (&cgroup.v2, cgroup.hybrid()) else { return Ok(()) };
    let Some(uid) = owner(spec, linux).filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    let uid = Some(Uid::from_raw(uid));
    rustix::fs::fchown(&directory.fd, uid, None).context(Code::CgroupCreate, &directory.path)?;
    let list = files::read_text("/sys/kernel/cgroup/delegate", 65536).unwrap_or_else(|_| DELEGATED.to_owned());
    for file in list.lines().filter(|f| !f.is_empty() && !f.contains('/')) {
        match rustix::fs::chownat(&directory.fd, file, uid, None, AtFlags::SYMLINK_NOFOLLOW) {
            // Of a controller that the group does not have.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::os(Code::CgroupCreate, format!("{}/{file}", directory.path), e)),
        }
    }
    Ok(())
}
