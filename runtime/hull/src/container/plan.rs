//! Everything that a container's process needs, prepared by the runtime before the process exists.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::net::SocketType;

use super::bundle::Bundle;
use super::create::CreateOptions;
use super::filters::Filters;
use super::namespaces::Namespaces;
use super::store::{self, Entry};
use super::{notify_socket, prepare_launch};
use crate::cgroup::{self, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::process::launch::Launch;
use crate::process::limits;
use crate::procfs::Proc;
use crate::rootfs::devices::{self, Node};
use crate::rootfs::mounts::{self, Prepared};
use crate::rootfs::{self, RootSource, cgroupfs};
use crate::socket;
use crate::spec::{NamespaceType, Process};

/// How the process learns that it may run the program.
#[derive(Debug)]
pub(crate) enum Gate {
    /// By a message of the runtime that made it.
    Message,
    /// By a connection of `start`.
    Socket(OwnedFd),
}

/// Where the other end of a terminal goes.
#[derive(Debug)]
pub(crate) enum TerminalTo {
    /// A console socket.
    Socket(OwnedFd),
    /// The runtime, which copies.
    Runtime,
}

/// Everything the process needs, made before it exists.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) namespaces: Namespaces,
    /// Opened by the process before it joins a mount namespace.
    pub(crate) proc: Option<Proc>,
    pub(crate) root: RootSource,
    pub(crate) mounts: Vec<Prepared>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) make_devices: bool,
    pub(crate) view: cgroupfs::View,
    /// Whether the process is told of its cgroups when they are there, and enters those of version 1.
    pub(crate) enters_cgroups: bool,
    pub(crate) launch: Launch<'a>,
    pub(crate) terminal: Option<TerminalTo>,
    pub(crate) gate: Gate,
    pub(crate) no_pivot: bool,
    /// Whether the runtime has work between the namespaces and the mounts.
    pub(crate) wait_for_runtime: bool,
    /// Whether systemd assigns the cgroup, while the process makes its namespaces and mounts.
    pub(crate) moved_by_systemd: bool,
    /// Whether the process must not be traceable from the beginning.
    pub(crate) undumpable: bool,
}

/// Opens and checks everything that a container's process will need.
pub(super) fn make<'a>(
    options: &'a CreateOptions,
    bundle: &'a Bundle,
    process: &'a Process,
    entry: &Entry,
    cgroup: Option<&cgroup::Record>,
    filters: &mut Filters,
) -> Result<Plan<'a>> {
    let root_rights = rustix::process::geteuid().is_root();
    let linux = bundle.linux();
    let namespaces = Namespaces::plan(linux)?;
    let own_mounts = namespaces.makes(NamespaceType::Mount);
    let early = root_rights && own_mounts;
    let path = bundle.rootfs()?;
    let root = if own_mounts { rootfs::open_root(&path, early)? } else { RootSource::Path(path) };
    let lent_limit = limits::make_room(bundle.spec.mounts.len().saturating_add(linux.devices.len()));
    let mut mounts = mounts::prepare(&bundle.spec.mounts, &bundle.path, early)?;
    let mut launch = launch(options, bundle, process, filters)?;
    launch.lent_limit = lent_limit;
    if notify_socket::outer().is_some() && own_mounts {
        let (mount, variable) = notify_socket::prepare(&entry.path)?;
        mounts.extend(mounts::prepare(&[mount], &bundle.path, early)?);
        launch.extra_env.push(variable);
    }
    let bind_devices = namespaces.user() || !crate::rights::rule_the_host();
    let dev_is_bound = mounts.iter().any(|m| m.destination == "/dev" && m.options.bind);
    let nodes = devices::prepare(linux, bind_devices && !dev_is_bound)?;
    let cgroup_namespace = linux.namespaces.iter().any(|n| n.r#type == NamespaceType::Cgroup);
    let view = cgroup.map_or_else(
        || rootfs::cgroupfs::View { namespace: cgroup_namespace, ..Default::default() },
        |c| c.view(cgroup_namespace),
    );
    let moved_by_systemd = options.driver == Driver::Systemd;
    let enters_cgroups = moved_by_systemd || cgroup.is_some_and(|record| !record.v1.is_empty());
    let wait_for_runtime = launch.listener.is_some()
        || !linux.net_devices.is_empty()
        || mounts.iter().any(Prepared::wants_id_map)
        || linux.intel_rdt.is_some()
        // If no cgroup shows the process, it must not exist on its own before the journal names it.
        || cgroup.is_some_and(|record| record.driver == Driver::Disabled);
    let terminal = terminal_target(process, options.console_socket.as_deref(), options.foreground)?;
    let gate = if options.run {
        Gate::Message
    } else {
        let path = entry.file(store::START_SOCKET);
        Gate::Socket(socket::bind(&path, SocketType::STREAM).context(Code::Socket, &path)?)
    };
    Ok(Plan {
        id: &options.id,
        bundle,
        namespaces,
        proc: None,
        root,
        mounts,
        nodes,
        make_devices: !dev_is_bound,
        view,
        enters_cgroups,
        launch,
        terminal,
        gate,
        no_pivot: options.no_pivot,
        wait_for_runtime,
        moved_by_systemd,
        undumpable: root_rights,
    })
}

/// The last steps of the container's process.
fn launch<'a>(
    options: &CreateOptions,
    bundle: &Bundle,
    process: &'a Process,
    filters: &mut Filters,
) -> Result<Launch<'a>> {
    let mut launch = prepare_launch(&bundle.spec, process, filters)?;
    // Of a new user namespace the runtime tells when it has written its maps.
    launch.set_groups = crate::rights::may_set_groups();
    if !options.no_new_keyring {
        let id = options.id.as_str();
        launch.keyring = Some(CString::new(format!("_ses.{id}")).map_err(|_| Error::new(Code::InvalidId, id))?);
    }
    launch.preserve_fds = options.preserve_fds.saturating_add(options.listen_fds.unwrap_or(0));
    launch.listen_fds = options.listen_fds;
    Ok(launch)
}

/// Where a process' terminal goes, if it has one.
pub(super) fn terminal_target(
    process: &Process,
    console_socket: Option<&str>,
    foreground: bool,
) -> Result<Option<TerminalTo>> {
    match (process.terminal, console_socket) {
        (true, Some(path)) => Ok(Some(TerminalTo::Socket(socket::connect(path).context(Code::Socket, path)?))),
        (true, None) if foreground => Ok(Some(TerminalTo::Runtime)),
        (true, None) => Err(Error::usage(
            "--console-socket",
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (false, Some(_)) => {
            Err(Error::usage("--console-socket", "cannot use console socket if runc will not detach or allocate tty"))
        }
        (false, None) => Ok(None),
    }
}
