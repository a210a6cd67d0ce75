//! Which namespaces are made and which are joined, and by which process.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::namespace as ns;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::spec::{Linux, NamespaceType};

/// The kernel's bit of a kind.
pub(crate) fn flag(kind: NamespaceType) -> u64 {
    match kind {
        NamespaceType::Pid => ns::PID,
        NamespaceType::Network => ns::NETWORK,
        NamespaceType::Mount => ns::MOUNT,
        NamespaceType::Ipc => ns::IPC,
        NamespaceType::Uts => ns::UTS,
        NamespaceType::User => ns::USER,
        NamespaceType::Cgroup => ns::CGROUP,
        NamespaceType::Time => ns::TIME,
    }
}

/// Name of a kind's file below `/proc/<pid>/ns`.
pub(crate) fn file_name(kind: NamespaceType) -> &'static str {
    match kind {
        NamespaceType::Pid => "pid",
        NamespaceType::Network => "net",
        NamespaceType::Mount => "mnt",
        NamespaceType::Ipc => "ipc",
        NamespaceType::Uts => "uts",
        NamespaceType::User => "user",
        NamespaceType::Cgroup => "cgroup",
        NamespaceType::Time => "time",
    }
}

/// A namespace to join.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: NamespaceType,
    pub(crate) path: String,
    fd: OwnedFd,
}

impl Join {
    pub(crate) fn raw_fd(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.fd.as_raw_fd()
    }
}

/// All namespaces of a container.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// Bits of the ones to make.
    pub(crate) new: u64,
    pub(crate) join: Vec<Join>,
}

impl Namespaces {
    /// Opens the ones to join.
    pub(crate) fn plan(linux: &Linux) -> Result<Self> {
        let mut out = Self::default();
        for namespace in &linux.namespaces {
            match namespace.path.as_deref().filter(|p| !p.is_empty()) {
                None => out.new |= flag(namespace.r#type),
                Some(path) => {
                    // What is no namespace is refused on joining it; a FIFO would not even let itself be opened.
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                    let fd = rustix::fs::open(path, flags, Mode::empty()).context(Code::NamespaceJoin, path)?;
                    if is_own(&fd, namespace.r#type) {
                        // Joining the namespace that one is already in fails for a user namespace and changes nothing for others.
                        continue;
                    }
                    out.join.push(Join { kind: namespace.r#type, path: path.to_owned(), fd });
                }
            }
        }
        Ok(out)
    }

    /// Whether a kind is new.
    pub(crate) fn makes(&self, kind: NamespaceType) -> bool {
        self.new & flag(kind) != 0
    }

    /// Whether a kind is joined.
    pub(crate) fn joins(&self, kind: NamespaceType) -> bool {
        self.join.iter().any(|j| j.kind == kind)
    }

    /// Whether the container has its own user namespace, new or joined.
    pub(crate) fn user(&self) -> bool {
        self.makes(NamespaceType::User) || self.joins(NamespaceType::User)
    }

    /// Bits of the new ones that a process can only be born into, or is better born into: what else is new has to belong to
    /// its user namespace.
    pub(crate) fn at_birth(&self) -> u64 {
        self.new & (ns::USER | ns::PID)
    }

    /// Makes the others, but for the cgroup namespace: in the process itself, so that the runtime makes its cgroups
    /// meanwhile. A network namespace takes the kernel as long as all of them.
    pub(crate) fn make_own(&self) -> Result<()> {
        match self.new & (ns::MOUNT | ns::UTS | ns::IPC | ns::NETWORK) {
            0 => Ok(()),
            flags => ns::unshare(flags).map_err(|errno| refused(Code::NamespaceCreate, "unshare", errno)),
        }
    }

    /// Whether a process between the runtime and the container's is needed: PID and time namespaces take effect for children only; what is
    /// made must belong to the user namespace that is joined; and joining may need rights that a new user namespace takes away.
    pub(crate) fn needs_stage(&self) -> bool {
        self.joins(NamespaceType::User)
            || self.joins(NamespaceType::Pid)
            || self.joins(NamespaceType::Time)
            || self.makes(NamespaceType::Time)
            || (self.makes(NamespaceType::User) && !self.join.is_empty())
    }

    /// Joins all of them: first with the runtime's rights, then, from within the user namespace, those that were refused.
    pub(crate) fn enter(&self) -> Result<()> {
        let mut refused = Vec::new();
        for join in self.join.iter().filter(|j| j.kind != NamespaceType::User) {
            match ns::setns(join.fd.as_fd(), flag(join.kind)) {
                Ok(()) => {}
                Err(Errno::PERM) if self.joins(NamespaceType::User) => refused.push(join),
                Err(e) => return Err(Error::os(Code::NamespaceJoin, join.path.as_str(), e)),
            }
        }
        for join in self.join.iter().filter(|j| j.kind == NamespaceType::User) {
            ns::setns(join.fd.as_fd(), ns::USER).context(Code::NamespaceJoin, &join.path)?;
        }
        for join in refused {
            ns::setns(join.fd.as_fd(), flag(join.kind)).context(Code::NamespaceJoin, &join.path)?;
        }
        Ok(())
    }
}

/// The kernel makes no new namespaces.
pub(crate) fn refused(code: Code, call: &str, errno: Errno) -> Error {
    let error = Error::os(code, call, errno).says("");
    match errno {
        Errno::PERM => error.hint("without root, a user namespace is needed (and allowed by the kernel)"),
        Errno::NOSPC | Errno::USERS => error.hint("the limit of namespaces is reached: see /proc/sys/user"),
        _ => error,
    }
}

fn is_own(fd: &OwnedFd, kind: NamespaceType) -> bool {
    let (Ok(theirs), Ok(ours)) =
        (rustix::fs::fstat(fd), rustix::fs::stat(format!("/proc/self/ns/{}", file_name(kind))))
    else {
        return false;
    };
    (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
}
