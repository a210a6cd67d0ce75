//! The processes of a container: those of its cgroup or, where it was made without one, of its PID namespace.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use hull_sys::namespace;
use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::delete;
use super::store::{Entry, State, process_stat};
use crate::cgroup::{Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{NamespaceType, Spec};

/// SIGKILL.
const KILL: i32 = 9;

/// The ids of all of them, sorted.
pub(crate) fn list(entry: &Entry, state: &State) -> Result<Vec<i32>> {
    let cgroup = Cgroup::open(&state.cgroup);
    if cgroup.driver != Driver::Disabled {
        return cgroup.processes();
    }
    if !state.running() {
        return Ok(Vec::new());
    }
    if !own_pids(&entry.config()?) {
        return Err(Error::new(Code::Unsupported, entry.id.as_str())
            .says("the container's processes are not known")
            .hint("it was made without a cgroup, and shares its PID namespace"));
    }
    in_namespace_of(state.pid)
}

/// Sends a signal to all of them.
pub(crate) fn signal(entry: &Entry, state: &State, signal: i32) -> Result<()> {
    let cgroup = Cgroup::open(&state.cgroup);
    if cgroup.driver == Driver::Disabled {
        let all = list(entry, state)?;
        if signal == KILL && !all.is_empty() {
            // When the first process of a PID namespace ends, the kernel kills all others.
            return delete::kill_first(state);
        }
        for pid in all {
            // A process that ended meanwhile needs no signal.
            let _ = hull_sys::signal::send(pid, signal);
        }
        return Ok(());
    }
    if signal == KILL {
        cgroup.kill_all()?;
        return cgroup.thaw().or(Ok(()));
    }
    cgroup.signal_all(signal)
}

/// Whether the container has a PID namespace of its own.
pub(super) fn own_pids(spec: &Spec) -> bool {
    spec.linux.as_ref().is_some_and(|l| {
        l.namespaces.iter().any(|n| n.r#type == NamespaceType::Pid && n.path.as_ref().is_none_or(String::is_empty))
    })
}

/// The processes in the PID namespace of `first`, and in those nested in it.
fn in_namespace_of(first: i32) -> Result<Vec<i32>> {
    let mut family = Family::of(first).doing(
        Code::Unsupported,
        &format!("/proc/{first}"),
        &format!("the PID namespace of {first}"),
    )?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).context(Code::CgroupRead, "/proc")?;
    let mut out = Vec::new();
    for found in Dir::read_from(&proc).context(Code::CgroupRead, "/proc")?.flatten() {
        let pid = found.file_name().to_str().ok().and_then(files::parse_unsigned::<i32>);
        // Zombies are left out, as in the list of a cgroup. So are processes that end meanwhile, or that the caller may not look at.
        out.extend(pid.filter(|pid| family.has(*pid) == Ok(true) && matches!(process_stat(*pid), Some((_, false)))));
    }
    out.sort_unstable();
    Ok(out)
}

/// A PID namespace and those nested in it.
struct Family {
    /// Namespaces by their number, and whether they belong to it.
    known: BTreeMap<u64, bool>,
}

impl Family {
    fn of(first: i32) -> Result<Self, Errno> {
        let root = rustix::fs::stat(namespace_of(first))?.st_ino;
        Ok(Self { known: BTreeMap::from([(root, true)]) })
    }

    fn has(&mut self, pid: i32) -> Result<bool, Errno> {
        let path = namespace_of(pid);
        if let Some(known) = self.known.get(&rustix::fs::stat(path.as_str())?.st_ino) {
            return Ok(*known);
        }
        let opened = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        self.includes(&opened)
    }

    fn includes(&mut self, namespace: &OwnedFd) -> Result<bool, Errno> {
        let number = rustix::fs::fstat(namespace)?.st_ino;
        if let Some(known) = self.known.get(&number) {
            return Ok(*known);
        }
        let inside = match namespace::parent(namespace.as_fd()) {
            Ok(parent) => self.includes(&parent)?,
            // It is the caller's own, or around that.
            Err(Errno::PERM) => false,
            Err(e) => return Err(e),
        };
        self.known.insert(number, inside);
        Ok(inside)
    }
}

fn namespace_of(pid: i32) -> String {
    format!("/proc/{pid}/ns/pid")
}
