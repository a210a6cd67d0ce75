//! How processes get into a container's cgroups.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::layout::MOUNT_POINT;
use super::tree::for_each_child;
use super::{Cgroup, Directory};
use crate::error::{Code, Context, Error, Result};
use crate::files;

/// A sub-group of a container's cgroup, as `exec --cgroup` names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SubGroup {
    /// The controllers whose version 1 hierarchies are meant; if empty, all of them and version 2.
    pub(crate) controllers: Vec<String>,
    pub(crate) path: String,
}

impl Cgroup {
    /// The directory clone3 can start a process in.
    pub(crate) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|d| d.fd.as_fd())
    }

    /// Descriptors of the version 1 `tasks` files, by which a process with one thread moves itself without the lock
    /// that moving others takes.
    pub(crate) fn entrances(&self) -> Result<Vec<OwnedFd>> {
        self.v1
            .iter()
            .map(|d| {
                rustix::fs::openat(&d.fd, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                    .with(Code::CgroupJoin, || d.path.clone())
            })
            .collect()
    }

    /// Enters a sub-group in the hierarchies of its controllers.
    pub(crate) fn descend(&mut self, group: &SubGroup) -> Result<()> {
        let all = group.controllers.is_empty();
        let has = |directory: &Directory, controller: &str| directory.name.split(',').any(|c| c == controller);
        if let Some(missing) = group.controllers.iter().find(|c| !self.v1.iter().any(|d| has(d, c))) {
            return Err(Error::usage("--cgroup", format!("--cgroup: there is no hierarchy with {missing:?}")));
        }
        for directory in &mut self.v1 {
            if all || group.controllers.iter().any(|c| has(directory, c)) {
                directory.descend(&group.path)?;
            }
        }
        match self.v2.as_mut().filter(|_| all) {
            Some(directory) => directory.descend(&group.path),
            None if all && self.v1.is_empty() => {
                Err(Error::usage("--cgroup", "--cgroup: the container was created without cgroups"))
            }
            None => Ok(()),
        }
    }
}

impl Directory {
    /// Descends to a sub-group, one component at a time and never upwards: comparing the text of paths would prove nothing.
    fn descend(&mut self, path: &str) -> Result<()> {
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            if part == ".." {
                let text = format!("--cgroup {path}: it must be below the container's cgroup");
                return Err(Error::usage("--cgroup", text));
            }
            self.fd = open_below(&self.fd, part).with(Code::CgroupJoin, || format!("{}/{part}", self.path))?;
            self.path = format!("{}/{part}", self.path);
        }
        Ok(())
    }

    /// Moves a process into this directory of version 2.
    ///
    /// The container may have delegated it, as an init system inside does. Then it accepts no processes, and the new one goes to where
    /// `first`, the container's first process, is. If that is not below this directory, the first group that accepts it is used.
    pub(crate) fn join_near(&self, pid: i32, first: i32) -> Result<()> {
        let text = pid.to_string();
        let enter = |group: BorrowedFd<'_>| files::write_at(group, "cgroup.procs", text.as_bytes());
        match enter(self.fd.as_fd()) {
            Ok(()) => return Ok(()),
            Err(e) if divided(e) => {}
            Err(e) => return Err(Error::os(Code::CgroupJoin, self.path.as_str(), e)),
        }
        let near = self.path_below(first).and_then(|path| open_below(&self.fd, &path).ok());
        if near.is_some_and(|group| enter(group.as_fd()).is_ok()) {
            return Ok(());
        }
        match enter_any(self.fd.as_fd(), &enter) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::os(Code::CgroupJoin, self.path.as_str(), Errno::BUSY)
                .hint("the container has divided its cgroup, and no group below takes a process")),
            Err(e) => Err(Error::os(Code::CgroupJoin, self.path.as_str(), e)),
        }
    }

    /// Where a process is, if that is below this directory.
    fn path_below(&self, pid: i32) -> Option<String> {
        let text = files::read_text(&format!("/proc/{pid}/cgroup"), 1 << 20).ok()?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        below(&self.path, own)
    }
}

/// The directory of version 2 that a process is in.
pub(super) fn of_process(pid: i32) -> Result<Directory, Errno> {
    let text = files::read_text(&format!("/proc/{pid}/cgroup"), 1 << 20).map_err(|_| Errno::SRCH)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or(Errno::NOENT)?;
    let mounts = [format!("{MOUNT_POINT}/unified"), MOUNT_POINT.to_owned()];
    for path in mounts.into_iter().map(|mount| mount + own) {
        if let Ok(fd) = super::open_directory(&path) {
            return Ok(Directory { name: String::new(), controllers: Vec::new(), path, fd });
        }
    }
    Err(Errno::NOENT)
}

/// The part of a process' path of version 2 that is below a directory of the host.
fn below(directory: &str, own: &str) -> Option<String> {
    let mounts = [MOUNT_POINT.to_owned(), format!("{MOUNT_POINT}/unified")];
    mounts.into_iter().find_map(|mount| {
        let path = mount + own;
        path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned)
    })
}

fn open_below(group: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(group, path, flags, Mode::empty())
}

/// Whether the kernel refuses processes in a group: it passes controllers on to groups below, or is part of a threaded one.
fn divided(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::OPNOTSUPP)
}

/// Enters the first group below that accepts the process.
fn enter_any(group: BorrowedFd<'_>, enter: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>) -> Result<bool, Errno> {
    let mut entered = false;
    for_each_child(group, &mut |_, child| {
        if !entered {
            entered = match enter(child.as_fd()) {
                Err(e) if divided(e) => enter_any(child.as_fd(), enter)?,
                other => other.is_ok(),
            };
        }
        Ok(())
    })?;
    Ok(entered)
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn a_path_is_below_by_whole_names() {
        let group = "/sys/fs/cgroup/machine/web";
        assert_eq!(below(group, "/machine/web/inner/deep").as_deref(), Some("inner/deep"));
        assert_eq!(below("/sys/fs/cgroup/unified/web", "/web/inner").as_deref(), Some("inner"));
        for other in ["/machine/web", "/machine/website/inner", "/inner", "/../machine/web/inner", ""] {
            assert_eq!(below(group, other), None, "{other}");
        }
    }
}
