//! Containers: their life cycle and records.

pub(crate) mod bundle;
pub(crate) mod console;
pub(crate) mod create;
pub(crate) mod criu;
mod damaged;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod exit;
pub(crate) mod filters;
pub(crate) mod foreground;
mod idmap;
pub(crate) mod init;
pub(crate) mod intel_rdt;
mod maps;
pub(crate) mod namespaces;
mod netdev;
mod netlink;
pub(crate) mod notify_socket;
pub(crate) mod parent;
pub(crate) mod plan;
pub(crate) mod processes;
pub(crate) mod restore;
pub(crate) mod session;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod sync;
mod sysctl;

pub(crate) use create::CreateOptions;
pub(crate) use state::{Report, report};
pub(crate) use store::Status;

use crate::error::{Code, Error, Result};
use crate::process::launch::{self, Launch};
use crate::process::limits::{self, Scheduling};
use crate::process::{caps, landlock, notify};
use crate::spec::seccomp::Action;
use crate::spec::{NamespaceType, Process, Spec};
use filters::Filters;

/// Checks and computes everything about a process of this container.
pub(crate) fn prepare_launch<'a>(spec: &Spec, process: &'a Process, filters: &mut Filters) -> Result<Launch<'a>> {
    let linux = spec.linux.as_ref();
    let capabilities = caps::resolve(process.capabilities.as_ref());
    // In a user namespace of its own, the process has all capabilities.
    if linux.is_none_or(|l| l.namespaces.iter().all(|n| n.r#type != NamespaceType::User)) {
        caps::tell_missing(&capabilities);
    }
    let scheduling = Scheduling {
        scheduler: process.scheduler.as_ref().map(limits::scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(limits::io_priority).transpose()?,
        memory_policy: linux.and_then(|l| l.memory_policy.as_ref()).map(limits::memory_policy).transpose()?,
        personality: linux.and_then(|l| l.personality.as_ref()).map(limits::personality).transpose()?,
    };
    let mut filter = None;
    let mut listener = None;
    if let Some(seccomp) = linux.and_then(|l| l.seccomp.as_ref()) {
        filter = Some(filters.filter(seccomp)?);
        if seccomp.syscalls.iter().any(|rule| rule.action == Action::Notify) {
            let path = seccomp.listener_path.as_deref().filter(|p| !p.is_empty());
            let path = path.ok_or_else(|| {
                Error::new(Code::Seccomp, "linux.seccomp.listenerPath")
                    .says("a rule asks a listener, but linux.seccomp.listenerPath is missing")
            })?;
            listener = Some(notify::Listener::connect(path, seccomp.listener_metadata.clone())?);
        }
    }
    if process.user.additional_gids.len() > 65_536 {
        return Err(Error::invalid(
            "process.user.additionalGids",
            "process.user.additionalGids has more than 65536 groups",
        ));
    }
    let landlock = spec.annotations.get(landlock::ANNOTATION).map(|text| landlock::Rules::parse(text)).transpose()?;
    Ok(Launch {
        process,
        capabilities,
        scheduling,
        filter,
        listener,
        landlock,
        wasm: None,
        preserve_fds: 0,
        listen_fds: None,
        keyring: None,
        set_groups: true,
        keep_groups: spec.annotations.contains_key(launch::KEEP_GROUPS),
        extra_env: Vec::new(),
        lent_limit: None,
    })
}
