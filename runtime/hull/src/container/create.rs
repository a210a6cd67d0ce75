//! Creating a container: the runtime's side.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, clone_process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::bundle::Bundle;
use super::filters::Filters;
use super::init::{self, Gate, Plan, TerminalTo};
use super::namespaces::Namespaces;
use super::store::{self, Entry, Stage, State};
use super::sync::{self, Message};
use super::{idmap, maps, netdev, notify_socket, prepare_launch};
use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::process::{limits, wasm};
use crate::rootfs::devices;
use crate::rootfs::mounts::{self, Prepared};
use crate::rootfs::{self, RootSource};
use crate::spec::{Hooks, Linux, NamespaceType, Process, Resources};
use crate::{hooks, socket, timeline};

/// What `create` and `run` are asked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct CreateOptions {
    /// Directory of the runtime's records.
    pub(crate) root: String,
    /// Container id.
    pub(crate) id: String,
    /// Bundle path.
    pub(crate) bundle: String,
    /// Unix socket that gets the terminal's master.
    pub(crate) console_socket: Option<String>,
    /// File that gets the process id.
    pub(crate) pid_file: Option<String>,
    /// Unix socket that gets a pidfd of the process.
    pub(crate) pidfd_socket: Option<String>,
    /// Change the root without pivot_root.
    pub(crate) no_pivot: bool,
    /// Make no session keyring.
    pub(crate) no_new_keyring: bool,
    /// How many descriptors from 3 on go to the program.
    pub(crate) preserve_fds: u32,
    /// How many of these were passed by socket activation.
    pub(crate) listen_fds: Option<u32>,
    /// Who makes cgroups.
    pub(crate) driver: Driver,
    /// Start the program without waiting for `start`.
    pub(crate) run: bool,
    /// The runtime keeps the terminal and copies.
    pub(crate) foreground: bool,
    /// File that says how WebAssembly programs are run, if not the default one.
    pub(crate) wasm_config: Option<String>,
}

/// A container that was just created.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) entry: Entry,
    pub(crate) state: State,
    pub(crate) bundle: Bundle,
    pub(crate) pidfd: OwnedFd,
    pub(crate) sync: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
}

/// What has to be undone when creation fails.
struct Undo {
    entry: Entry,
    cgroup: Option<Cgroup>,
    pidfd: Option<OwnedFd>,
    intel_rdt: Option<String>,
}

impl Undo {
    fn run(self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all();
            let _ = cgroup.wait_empty(2000);
            let _ = cgroup.remove_all();
        }
        if let Some(path) = &self.intel_rdt {
            super::intel_rdt::remove(path);
        }
        let _ = self.entry.remove();
    }
}

/// Creates a container; on failure nothing is left behind.
pub(crate) fn create(options: &CreateOptions) -> Result<Created> {
    let bundle = Bundle::load_protected(&options.bundle)?;
    let process = bundle.spec.process.as_ref().ok_or_else(|| Error::new(Code::ConfigInvalid, "process is missing"))?;
    timeline::mark("config");
    let entry = Entry::create(&options.root, &options.id)?;
    let mut undo = Undo { entry, cgroup: None, pidfd: None, intel_rdt: None };
    match create_in(options, &bundle, process, &mut undo) {
        Ok((state, sync, terminal)) => {
            let (entry, pidfd) = (undo.entry, undo.pidfd);
            let pidfd = pidfd.ok_or_else(|| Error::new(Code::Internal, "no process"))?;
            Ok(Created { entry, state, bundle, pidfd, sync, terminal })
        }
        Err(error) => {
            undo.run();
            Err(error)
        }
    }
}

fn create_in(
    options: &CreateOptions,
    bundle: &Bundle,
    process: &Process,
    undo: &mut Undo,
) -> Result<(State, OwnedFd, Option<OwnedFd>)> {
    undo.entry.lock()?;
    undo.entry.save_config(&bundle.json)?;
    let linux = bundle.linux();
    let namespaces = Namespaces::plan(linux)?;
    let root_rights = rustix::process::geteuid().is_root();
    let own_pid = rustix::process::getpid().as_raw_pid();
    let record = match options.driver {
        Driver::Disabled => cgroup::Record { driver: Driver::Disabled, ..cgroup::Record::default() },
        Driver::Cgroupfs => {
            cgroup::plan(&cgroup::layout::Layout::detect()?, linux.cgroups_path.as_deref(), &options.id)?
        }
        Driver::Systemd => cgroup::systemd::plan(linux.cgroups_path.as_deref(), &options.id)?,
    };
    let mut state = State {
        oci_version: bundle.spec.oci_version.clone(),
        id: options.id.clone(),
        stage: Stage::Creating,
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs()?,
        created: crate::time::now_rfc3339(),
        owner: rustix::process::getuid().as_raw(),
        boot_id: store::boot_id()?,
        creator: own_pid,
        creator_start: store::process_stat(own_pid).map_or(0, |s| s.0),
        cgroup: record,
        ..State::default()
    };
    // The journal: what follows can be cleaned up from it alone.
    undo.entry.save(&state)?;
    timeline::mark("state");
    if options.driver != Driver::Systemd {
        equip(undo.cgroup.insert(make_cgroup(&mut state, linux)?), bundle)?;
    }
    timeline::mark("cgroup");
    let (ours, theirs) = socket::pair().context(Code::Internal, "socket pair")?;
    let wasm = wasm::config::Config::load(options.wasm_config.as_deref())?;
    let mut filters = Filters::delivered_below(&options.root);
    let mut plan = make_plan(options, bundle, process, namespaces, root_rights, &mut filters, undo)?;
    plan.launch.wasm = wasm::Handler::of_container(&bundle.spec, process, &wasm)?;
    let wanted = Wanted { mounts_with_maps: plan.mounts.iter().any(Prepared::wants_id_map), wasm: &wasm };
    timeline::mark("sources");
    let gate_is_socket = matches!(plan.gate, Gate::Socket(_));
    let child = spawn(plan, ours, theirs, undo.cgroup.as_ref())?;
    let mut parent = Parent {
        sync: child.sync,
        mounts: child.mounts,
        stage: child.stage.then(|| (child.pid, child.pidfd.try_clone().ok())),
        pid: if child.stage { 0 } else { child.pid },
        terminal: None,
        set_groups: true,
    };
    undo.pidfd = Some(child.pidfd);
    parent.converse(bundle, &mut state, undo, &wanted, &mut filters)?;
    timeline::mark("init");
    if options.driver == Driver::Systemd {
        // The unit was made for the process that is inside it now.
        state.cgroup = undo.cgroup.as_ref().map(Cgroup::record).unwrap_or_default();
    }
    finish(options, bundle, process, &mut state, &parent, undo)?;
    debug_assert!(gate_is_socket != options.run);
    Ok((state, parent.sync, parent.terminal))
}

struct Wanted<'a> {
    mounts_with_maps: bool,
    wasm: &'a wasm::config::Config,
}

/// Makes the cgroup that the state plans. A user who may make none, and whose configuration asks for none, goes without.
fn make_cgroup(state: &mut State, linux: &Linux) -> Result<Cgroup> {
    if state.cgroup.driver == Driver::Disabled {
        return Ok(Cgroup::disabled());
    }
    let asked = linux.cgroups_path.as_deref().is_some_and(|p| !p.is_empty())
        || linux
            .resources
            .as_ref()
            .is_some_and(|r| *r != Resources { devices: r.devices.clone(), ..Resources::default() });
    match Cgroup::create(&state.cgroup) {
        Err(e)
            if !asked
                && !crate::rights::rule_the_host()
                && matches!(e.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)) =>
        {
            crate::log::debug(&format!("no cgroup for this container: {e}"));
            // Of a machine with several hierarchies, some may have let it.
            let _ = Cgroup::open(&state.cgroup).remove_all();
            state.cgroup = cgroup::Record { driver: Driver::Disabled, ..cgroup::Record::default() };
            Ok(Cgroup::disabled())
        }
        other => other,
    }
}

/// Writes into a cgroup what the configuration says, but for the limit of tasks.
pub(crate) fn equip(cgroup: &Cgroup, bundle: &Bundle) -> Result<()> {
    if cgroup.driver == Driver::Disabled {
        return Ok(());
    }
    let linux = bundle.linux();
    if let Some(resources) = &linux.resources {
        cgroup.apply(resources)?;
    }
    apply_devices(cgroup, linux.resources.as_ref())?;
    cgroup::ownership::give(cgroup, &bundle.spec, linux)
}

fn apply_devices(cgroup: &Cgroup, resources: Option<&crate::spec::Resources>) -> Result<()> {
    match cgroup.apply_devices(resources) {
        // Without root the kernel keeps devices away by itself: nodes cannot be made in a user namespace.
        Err(e) if !crate::rights::rule_the_host() && matches!(e.errno(), Some(Errno::PERM | Errno::ACCESS)) => Ok(()),
        other => other,
    }
}

fn make_plan<'a>(
    options: &'a CreateOptions,
    bundle: &'a Bundle,
    process: &'a Process,
    namespaces: Namespaces,
    root_rights: bool,
    filters: &mut Filters,
    undo: &Undo,
) -> Result<Plan<'a>> {
    let linux = bundle.linux();
    let early = root_rights && namespaces.makes(NamespaceType::Mount);
    let root = if namespaces.makes(NamespaceType::Mount) {
        rootfs::open_root(&bundle.rootfs()?, early)?
    } else {
        RootSource::Path(bundle.rootfs()?)
    };
    let mut mounts = mounts::prepare(&bundle.spec.mounts, &bundle.path, early)?;
    let mut extra_env = Vec::new();
    if notify_socket::outer().is_some() && namespaces.makes(NamespaceType::Mount) {
        let (mount, variable) = notify_socket::prepare(&undo.entry.path)?;
        mounts.extend(mounts::prepare(&[mount], &bundle.path, early)?);
        extra_env.push(variable);
    }
    let bind_devices = namespaces.user() || !root_rights;
    let dev_is_bound = mounts.iter().any(|m| m.destination == "/dev" && m.options.bind);
    let nodes = devices::prepare(&linux.devices, bind_devices && !dev_is_bound)?;
    let cgroup_namespace = linux.namespaces.iter().any(|n| n.r#type == NamespaceType::Cgroup);
    let view = undo.cgroup.as_ref().map_or_else(
        || rootfs::cgroupfs::View { namespace: cgroup_namespace, ..Default::default() },
        |c| c.view(cgroup_namespace),
    );
    let entrances = undo.cgroup.as_ref().map_or_else(|| Ok(Vec::new()), Cgroup::entrances)?;
    let hooks = bundle.spec.hooks.as_ref();
    let any_hook = hooks.is_some_and(|h: &Hooks| {
        !(h.prestart.is_empty()
            && h.create_runtime.is_empty()
            && h.create_container.is_empty()
            && h.start_container.is_empty())
    });
    let keyring = if options.no_new_keyring {
        None
    } else {
        Some(
            CString::new(format!("_ses.{}", options.id))
                .map_err(|_| Error::new(Code::InvalidId, options.id.as_str()))?,
        )
    };
    let mut launch = prepare_launch(&bundle.spec, process, filters)?;
    launch.keyring = keyring;
    launch.extra_env = extra_env;
    launch.preserve_fds = options.preserve_fds.saturating_add(options.listen_fds.unwrap_or(0));
    launch.listen_fds = options.listen_fds;
    let wait_for_runtime = any_hook
        || launch.listener.is_some()
        || !linux.net_devices.is_empty()
        || mounts.iter().any(Prepared::wants_id_map)
        || options.driver == Driver::Systemd
        || linux.intel_rdt.is_some()
        // Where no cgroup shows the process, it must not be there on its own before the journal names it.
        || undo.cgroup.as_ref().is_some_and(|cgroup| cgroup.driver == Driver::Disabled);
    let terminal = terminal_target(options, process)?;
    let gate = if options.run {
        Gate::Message
    } else {
        let path = undo.entry.file(store::START_SOCKET);
        Gate::Socket(socket::bind(&path, SocketType::STREAM).context(Code::Socket, &path)?)
    };
    Ok(Plan {
        id: &options.id,
        bundle,
        namespaces,
        root,
        mounts,
        nodes,
        make_devices: !dev_is_bound,
        view,
        entrances,
        launch,
        terminal,
        gate,
        no_pivot: options.no_pivot,
        wait_for_runtime,
        moved_by_systemd: options.driver == Driver::Systemd,
        undumpable: root_rights,
    })
}

pub(crate) fn terminal_target(options: &CreateOptions, process: &Process) -> Result<Option<TerminalTo>> {
    match (process.terminal, &options.console_socket) {
        (true, Some(path)) => Ok(Some(TerminalTo::Socket(socket::connect(path).context(Code::Socket, path)?))),
        (true, None) if options.foreground => Ok(Some(TerminalTo::Runtime)),
        (true, None) => {
            Err(Error::new(Code::Usage, "cannot allocate tty if runc will detach without setting console socket"))
        }
        (false, Some(_)) => {
            Err(Error::new(Code::Usage, "cannot use console socket if runc will not detach or allocate tty"))
        }
        (false, None) => Ok(None),
    }
}

/// The first process that was made.
struct Spawned<'a> {
    sync: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    /// Whether it is the in-between process.
    stage: bool,
    mounts: Vec<Prepared>,
    _plan: std::marker::PhantomData<&'a ()>,
}

fn spawn<'a>(plan: Plan<'a>, ours: OwnedFd, theirs: OwnedFd, cgroup: Option<&Cgroup>) -> Result<Spawned<'a>> {
    let stage = plan.namespaces.needs_stage();
    let flags = if stage { 0 } else { plan.namespaces.new & !hull_sys::namespace::CGROUP };
    let target = cgroup.and_then(Cgroup::clone_target);
    let mut cloned = clone_process(&CloneOptions { flags, cgroup: target });
    if target.is_some() && matches!(cloned, Err(Errno::BUSY | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)) {
        // Not allowed to start there: start here and be moved.
        cloned = clone_process(&CloneOptions { flags, cgroup: None });
        if let (Ok(Cloned::Parent { pid, .. }), Some(cgroup)) = (&cloned, cgroup) {
            cgroup.move_v2(*pid)?;
        }
    }
    match cloned.map_err(|e| {
        let error = Error::os(Code::Clone, "", e);
        match e {
            Errno::PERM => error.hint("without root, a user namespace is needed (and allowed by the kernel)"),
            Errno::NOSPC | Errno::USERS => error.hint("the limit of namespaces is reached: see /proc/sys/user"),
            _ => error,
        }
    })? {
        Cloned::Child => {
            drop(ours);
            if stage { init::stage_main(plan, theirs) } else { init::init_main(plan, theirs) }
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let Plan { mounts, .. } = plan;
            Ok(Spawned { sync: ours, pid, pidfd, stage, mounts, _plan: std::marker::PhantomData })
        }
    }
}

/// The runtime's end of the conversation.
struct Parent {
    sync: OwnedFd,
    mounts: Vec<Prepared>,
    /// The in-between process, until it is gone.
    stage: Option<(i32, Option<OwnedFd>)>,
    /// The container's process, 0 until it exists.
    pid: i32,
    terminal: Option<OwnedFd>,
    set_groups: bool,
}

impl Parent {
    /// Answers until the process is ready.
    fn converse(
        &mut self,
        bundle: &Bundle,
        state: &mut State,
        undo: &mut Undo,
        wanted: &Wanted<'_>,
        filters: &mut Filters,
    ) -> Result<()> {
        let linux = bundle.linux();
        let process = bundle.spec.process.as_ref();
        if self.pid != 0 {
            self.adopt(process, state, &undo.entry)?;
        }
        filters.deliver(linux.seccomp.as_ref())?;
        loop {
            match self.receive(undo)? {
                Message::Init { pid, pidfd } => {
                    self.pid = pid;
                    if let Some((_, Some(stage))) = self.stage.take() {
                        let _ = waitid(WaitId::PidFd(stage.as_fd()), WaitIdOptions::EXITED);
                    }
                    undo.pidfd = Some(pidfd);
                    self.adopt(process, state, &undo.entry)?;
                    self.go()?;
                }
                Message::NamespacesReady | Message::MountsReady | Message::Module(_) | Message::Ready
                    if self.pid == 0 =>
                {
                    return Err(Error::new(Code::Internal, "message of a process that was not told of"));
                }
                Message::WantsMaps => {
                    let pid = self.stage.as_ref().map_or(self.pid, |s| s.0);
                    self.set_groups = maps::write(pid, linux)?;
                    self.go()?;
                }
                Message::NamespacesReady => {
                    self.runtime_part(bundle, state, undo, wanted)?;
                    self.go()?;
                }
                Message::MountsReady => {
                    run_creation_hooks(bundle, &state.id, self.pid)?;
                    self.go()?;
                }
                Message::Terminal(master) => self.terminal = Some(master),
                Message::Module(file) => wasm::cache::answer(wanted.wasm, file, &self.sync)?,
                Message::Ready => return Ok(()),
                Message::Failed(error) => return Err(error),
                Message::End => return Err(death(undo)),
                Message::Go { .. } | Message::Start | Message::Compiled(_) | Message::Exit(_) => {
                    return Err(Error::new(Code::Internal, "unexpected message"));
                }
            }
        }
    }

    /// The next message; the in-between process shares its channel with the container's, so that its end must be seen by
    /// itself.
    fn receive(&self, undo: &Undo) -> Result<Message> {
        if let Some((_, Some(stage))) = &self.stage {
            let mut fds = [PollFd::new(&self.sync, PollFlags::IN), PollFd::new(stage, PollFlags::IN)];
            while let Err(e) = poll(&mut fds, None) {
                if e != Errno::INTR {
                    return Err(Error::os(Code::Internal, "poll", e));
                }
            }
            if fds.iter().map(PollFd::revents).eq([PollFlags::empty(), PollFlags::IN]) {
                return Err(death(undo));
            }
        }
        sync::receive(&self.sync)
    }

    /// What needs the runtime's rights over a process: limits and the killer's score, set from outside.
    fn adopt(&self, process: Option<&Process>, state: &mut State, entry: &Entry) -> Result<()> {
        state.pid = self.pid;
        state.start_time = store::process_stat(self.pid).map_or(0, |s| s.0);
        if state.cgroup.driver != Driver::Cgroupfs {
            // No cgroup shows yet which processes are the container's, so the journal has to.
            entry.save(state)?;
        }
        let Some(process) = process else { return Ok(()) };
        set_outside(self.pid, process)
    }

    fn runtime_part(&self, bundle: &Bundle, state: &mut State, undo: &mut Undo, wanted: &Wanted<'_>) -> Result<()> {
        let linux = bundle.linux();
        if state.cgroup.driver == Driver::Systemd {
            let resources = linux.resources.clone().unwrap_or_default();
            let cgroup = cgroup::systemd::start(&state.cgroup, self.pid, &resources, &bundle.spec.annotations)?;
            equip(undo.cgroup.insert(cgroup), bundle)?;
        }
        if let Some(rdt) = &linux.intel_rdt {
            let group = super::intel_rdt::apply(rdt, &state.id, self.pid)?;
            undo.intel_rdt.clone_from(&group);
            state.intel_rdt = group;
        }
        if wanted.mounts_with_maps {
            idmap::apply(&self.mounts, self.pid, linux)?;
        }
        if !linux.net_devices.is_empty() {
            netdev::move_all(&linux.net_devices, self.pid)?;
        }
        Ok(())
    }

    fn go(&self) -> Result<()> {
        sync::send(&self.sync, &Message::Go { pid: self.pid, set_groups: self.set_groups })
            .context(Code::Internal, "sync")
    }
}

/// Runs the hooks that work on a container from outside. They find its mounts made, at the root's own path, and may add
/// to them: the root is changed afterwards.
pub(crate) fn run_creation_hooks(bundle: &Bundle, id: &str, pid: i32) -> Result<()> {
    let Some(h) = &bundle.spec.hooks else { return Ok(()) };
    let json = super::state::json_for_hooks(&bundle.spec, id, &bundle.path, "creating", pid);
    hooks::run("prestart", &h.prestart, &json, Some(&bundle.path), &[])?;
    hooks::run("createRuntime", &h.create_runtime, &json, Some(&bundle.path), &[])
}

/// Sets what the process cannot, or may no longer, set for itself.
pub(crate) fn set_outside(pid: i32, process: &Process) -> Result<()> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Error::new(Code::Internal, "no process id"))?;
    limits::raise_limits(raw, &process.rlimits)?;
    if let Some(score) = process.oom_score_adj {
        let path = format!("/proc/{pid}/oom_score_adj");
        match files::write_at(rustix::fs::CWD, &path, score.to_string().as_bytes()) {
            Ok(()) => {}
            Err(e) => {
                let same = files::read_text(&path, 64).is_ok_and(|now| now.trim() == score.to_string());
                if !same {
                    return Err(Error::os(Code::Scheduling, format!("oom_score_adj to {score}"), e)
                        .hint("lowering it needs CAP_SYS_RESOURCE in the initial user namespace"));
                }
            }
        }
    }
    Ok(())
}

/// Why the process ended without a word.
fn death(undo: &Undo) -> Error {
    let status =
        undo.pidfd.as_ref().and_then(|fd| waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED).ok().flatten());
    let text = match status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal) {
        Some(9) => "killed".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => {
            status.and_then(|s| s.exit_status()).map_or_else(|| "no status".to_owned(), |code| format!("status {code}"))
        }
    };
    let error = Error::new(Code::InitDied, text);
    let killed_by_memory = undo.cgroup.as_ref().is_some_and(Cgroup::had_oom_kill);
    if killed_by_memory {
        error.hint("it ran out of memory: linux.resources.memory.limit is too small to start")
    } else {
        error
    }
}

fn finish(
    options: &CreateOptions,
    bundle: &Bundle,
    process: &Process,
    state: &mut State,
    parent: &Parent,
    undo: &Undo,
) -> Result<()> {
    if let (Some(cgroup), Some(resources)) = (&undo.cgroup, &bundle.linux().resources) {
        cgroup.apply_pids(resources)?;
    }
    let _ = process;
    state.stage = Stage::Created;
    undo.entry.save(state)?;
    if let Some(path) = &options.pidfd_socket {
        let pid = Pid::from_raw(parent.pid).ok_or_else(|| Error::new(Code::Internal, "no process id"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(Code::Socket, path)?;
        let socket = socket::connect(path).context(Code::Socket, path)?;
        socket::send_with_fd(&socket, b"pidfd", &pidfd).context(Code::Socket, path)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, parent.pid)?;
    }
    Ok(())
}

/// Writes a process id so that a reader sees all of it or no file.
pub(crate) fn write_pid_file(path: &str, pid: i32) -> Result<()> {
    let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
    let dir = if dir.is_empty() { "/" } else { dir };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .and_then(|dir| files::publish_at(dir, name, pid.to_string().as_bytes(), Mode::from_raw_mode(0o644)))
        .with(Code::Output, || format!("pid file {path}"))
}

/// Lets a created container's process run its program; the answer is the end of the channel (by execve) or an error.
pub(crate) fn release(sync: &OwnedFd) -> Result<()> {
    let sent = match sync::send(sync, &Message::Start) {
        Ok(()) => true,
        // It is gone, and may have said why.
        Err(Errno::PIPE | Errno::CONNRESET) => false,
        Err(e) => return Err(Error::os(Code::Internal, "sync", e)),
    };
    match sync::receive(sync)? {
        Message::End if sent => Ok(()),
        Message::End => Err(Error::new(Code::WrongState, "cannot start a container that has stopped")),
        Message::Failed(error) => Err(error),
        _ => Err(Error::new(Code::Internal, "unexpected message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The container's process shares the channel with the one in between, and could be faster than it: a container
    /// whose process id is 0 came of that.
    #[test]
    fn a_process_may_not_speak_before_it_was_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::create(dir.path().to_str().unwrap(), "early").unwrap();
        let mut undo = Undo { entry, cgroup: None, pidfd: None, intel_rdt: None };
        let bundle = Bundle { path: String::new(), spec: crate::spec::Spec::default(), json: Vec::new() };
        let (ours, theirs) = socket::pair().unwrap();
        let own = rustix::process::getpid();
        let parent_of =
            |sync| Parent { sync, mounts: Vec::new(), stage: None, pid: 0, terminal: None, set_groups: true };
        let mut state = State::default();
        sync::send(&theirs, &Message::Ready).unwrap();
        let mut parent = parent_of(ours);
        let wanted = Wanted { mounts_with_maps: false, wasm: &<_>::default() };
        let mut filters = Filters::below("");
        let refused = parent.converse(&bundle, &mut state, &mut undo, &wanted, &mut filters);
        assert_eq!(refused.unwrap_err().code(), Code::Internal);
        let pidfd = pidfd_open(own, PidfdFlags::empty()).unwrap();
        sync::send(&theirs, &Message::Init { pid: own.as_raw_pid(), pidfd }).unwrap();
        sync::send(&theirs, &Message::Ready).unwrap();
        parent.converse(&bundle, &mut state, &mut undo, &wanted, &mut filters).unwrap();
        assert_eq!((parent.pid, state.pid), (own.as_raw_pid(), own.as_raw_pid()));
        assert_eq!(sync::await_go(&theirs).unwrap().0, own.as_raw_pid());
    }
}
