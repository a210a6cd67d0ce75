//! The image's directory, made readable to CRIU while it restores a container with a user namespace.
//!
//! The files belong to the host's root and are readable by nobody else. CRIU reads them as root of the container's user namespace, who is
//! somebody else; but it reads one of them, the clock offsets, before the ids of that namespace are mapped, as a process that has given up
//! its capabilities and is still root of the host. No owner suits both. So the image gets a mount on which it belongs to the container's
//! root, and above it a directory that everybody may search, with a copy of the offsets, which are no secret.

use std::os::fd::{AsFd as _, OwnedFd};

use hull_sys::mount::{ATTR_IDMAP, MountAttr, mount_setattr};
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use crate::container::idmap;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{Linux, NamespaceType, Spec};

/// Whether CRIU may read this file before the ids are mapped: the offsets of a time namespace, with the namespace's number
/// in the image. 0 is the host's; a container has its own if its configuration says so, or once it was restored.
fn holds_offsets(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"timens-").and_then(|rest| rest.strip_suffix(b".img"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// A file that every image of CRIU has.
const INVENTORY: &str = "inventory.img";

/// Where the image itself is below the directory that is shown instead.
const MAPPED: &str = ".image";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the directory at `path`.
pub(super) fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).doing(
        Code::Checkpoint,
        path,
        &format!("cannot open the image {path}"),
    )
}

/// Whether there is an image at `path`.
pub(crate) fn check(path: &str) -> Result<()> {
    let image = open(path)?;
    match rustix::fs::accessat(&image, INVENTORY, Access::EXISTS, AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(e) => {
            let file = format!("{path}/{INVENTORY}");
            let text = format!("cannot find {file}");
            Err(Error::os(Code::Checkpoint, file, e).says(text).hint("it holds no checkpoint"))
        }
    }
}

/// What CRIU is given instead of the image at `path`, if anything; the caller has a mount namespace of its own.
pub(super) fn readable(image: &OwnedFd, path: &str, spec: &Spec) -> Result<Option<OwnedFd>> {
    let own_user = |linux: &&Linux| linux.namespaces.iter().any(|n| n.r#type == NamespaceType::User);
    let Some(linux) = spec.linux.as_ref().filter(own_user) else { return Ok(None) };
    let userns = idmap::user_namespace(&linux.uid_mappings, &linux.gid_mappings)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mapped = open_tree(image, "", flags).context(Code::MountAttr, path)?;
    let attr = MountAttr { set: ATTR_IDMAP, userns: Some(userns.as_fd()), ..MountAttr::default() };
    if let Err(errno) = mount_setattr(mapped.as_fd(), c"", &attr) {
        // A file system without id-mapped mounts: it works if others may read the image.
        crate::log::debug(&format!("{path}: its ids cannot be mapped: {errno}"));
        return Ok(None);
    }
    show(image, &mapped, path).map(Some).doing(Code::Checkpoint, path, &format!("cannot map the ids of {path}"))
}

/// Makes the directory of links to the image's files, in the image's place.
fn show(image: &OwnedFd, mapped: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0755")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let shown = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&shown, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::fs::mkdirat(&shown, MAPPED, Mode::from_raw_mode(0o755))?;
    move_mount(mapped, "", &shown, MAPPED, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for entry in Dir::read_from(image)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if holds_offsets(name) => {
                let name = entry.file_name().to_string_lossy();
                files::replace_at(&shown, &name, &files::read_at(image, &name, 1 << 20)?, Mode::RUSR)?;
                // Whatever the umask is.
                rustix::fs::chmodat(&shown, &*name, Mode::from_raw_mode(0o444), AtFlags::empty())?;
            }
            // The way to the image before this one begins here.
            name if entry.file_type() == FileType::Symlink => {
                rustix::fs::symlinkat(rustix::fs::readlinkat(image, name, Vec::new())?, &shown, name)?;
            }
            name => rustix::fs::symlinkat([MAPPED.as_bytes(), b"/", name].concat(), &shown, name)?,
        }
    }
    rustix::fs::open(path, DIRECTORY, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::holds_offsets;

    #[test]
    fn offsets_of_every_time_namespace_are_found() {
        for name in ["timens-0.img", "timens-13.img"] {
            assert!(holds_offsets(name.as_bytes()), "{name}");
        }
        for name in ["timens-.img", "timens-1.img.tmp", "pstree.img", "utsns-11.img", "timens-1/2.img"] {
            assert!(!holds_offsets(name.as_bytes()), "{name}");
        }
    }
}
