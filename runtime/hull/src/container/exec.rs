//! Running a further process in a container.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hull_sys::namespace as ns;
use hull_sys::process::{CloneOptions, Cloned, clone_process, exit};
use hull_sys::{prctl, sched};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::create::Tells;
use super::filters::Filters;
use super::namespaces::flag;
use super::parent::set_outside;
use super::plan::{TerminalTo, terminal_target};
use super::store::{Entry, State};
use super::sync::{self, Message};
use super::{bundle, console, prepare_launch};
use crate::cgroup::{Cgroup, Directory, SubGroup};
use crate::error::{Code, Context, Error, Result};
use crate::process::labels::Labels;
use crate::process::launch::Launch;
use crate::process::{limits, own_binary, wasm};
use crate::spec::{NamespaceType, Process, Spec};
use crate::{files, socket, timeline};

/// What `exec` is asked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct ExecOptions {
    /// The process.
    pub(crate) process: Process,
    /// Unix socket that gets the terminal's master.
    pub(crate) console_socket: Option<String>,
    /// Who is told of the process.
    pub(crate) tells: Tells,
    /// How many descriptors from 3 on go to the program.
    pub(crate) preserve_fds: u32,
    /// Start although the container is paused.
    pub(crate) ignore_paused: bool,
    /// Sub-cgroups below the container's.
    pub(crate) cgroups: Vec<SubGroup>,
    /// The caller stays in the foreground and may copy a terminal.
    pub(crate) foreground: bool,
    /// File that says how WebAssembly programs are run, if not the default one.
    pub(crate) wasm_config: Option<String>,
}

/// A process that was started in a container.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
}

/// The container in which a process is to be started.
#[derive(Debug)]
pub(crate) struct Target {
    entry: Entry,
    filters: Filters,
    pub(crate) spec: Spec,
}

impl Target {
    /// Opens its records. From here on, this program runs from a file that the container cannot write to.
    pub(crate) fn open(root: &str, id: &str) -> Result<Self> {
        let entry = Entry::open(root, id)?;
        let json = entry.config_json()?;
        let protected = own_binary::protect_early(&json)?;
        let spec = entry.parse_config(&json)?;
        if !protected {
            own_binary::protect(spec.linux.as_ref())?;
        }
        Ok(Self { entry, filters: Filters::below(root), spec })
    }
}

/// Starts a process in a container; when this returns, the program runs.
pub(crate) fn exec(container: Target, options: &ExecOptions) -> Result<Executed> {
    Entrance::open(container, options)?.start(options, None)
}

/// A container in which processes can be started: everything that stays the same from one to the next.
#[derive(Debug)]
pub(crate) struct Entrance {
    spec: Spec,
    state: State,
    /// Inherited by the child, which must close it before its program runs.
    target: Option<OwnedFd>,
    namespaces: u64,
    own_user: bool,
    set_groups: bool,
    keyring: CString,
    filters: Filters,
    wasm: wasm::config::Config,
    place: Place,
}

impl Entrance {
    /// Finds the container and enters the PID namespace, for processes that are made from now on.
    pub(crate) fn open(container: Target, options: &ExecOptions) -> Result<Self> {
        let Target { entry, filters, spec } = container;
        let state = entry.state()?;
        let cgroup = Cgroup::of_running(&state.cgroup, state.pid)?;
        let target = open_process(&state)?;
        refuse_paused(&state, options.ignore_paused)?;
        timeline::mark("config");
        let namespaces = shared_namespaces(&spec, state.pid)?;
        let own_user = namespaces & ns::USER != 0;
        let set_groups =
            files::read_text(&format!("/proc/{}/setgroups", state.pid), 16).map_or(true, |t| t.trim() != "deny");
        let id = entry.id.as_str();
        let keyring = CString::new(format!("_ses.{id}")).map_err(|_| Error::new(Code::InvalidId, id))?;
        let wasm = wasm::config::Config::load(options.wasm_config.as_deref())?;
        let place = Place::find(cgroup, &options.cgroups)?;
        // Not traceable from its first moment on: the container's processes see it as soon as it is cloned.
        let root_rights = rustix::process::geteuid().is_root();
        prctl::set_dumpable(!root_rights).context(Code::Internal, "dumpable")?;
        if namespaces & ns::PID != 0 {
            // Takes effect for children of this process: one clone is enough.
            ns::setns(target.as_fd(), ns::PID)
                .or_else(|e| if own_user && e == Errno::PERM { Ok(()) } else { Err(e) })
                .context(Code::NamespaceJoin, "pid")?;
        }
        let target = Some(target);
        Ok(Self { spec, state, target, namespaces, own_user, set_groups, keyring, filters, wasm, place })
    }

    /// Readable when the container has ended.
    pub(crate) fn target(&self) -> Option<&OwnedFd> {
        self.target.as_ref()
    }

    /// Starts a process, with the caller's standard streams or with given ones.
    pub(crate) fn start(&mut self, options: &ExecOptions, streams: Option<[OwnedFd; 3]>) -> Result<Executed> {
        bundle::check_process(&options.process)?;
        let mut launch = prepare_launch(&self.spec, &options.process, &mut self.filters)?;
        launch.preserve_fds = options.preserve_fds;
        launch.wasm = wasm::Handler::of_exec(&self.spec, &options.process, &self.wasm)?;
        launch.keyring = Some(self.keyring.clone());
        launch.set_groups = self.set_groups;
        let terminal = terminal_target(&options.process, options.console_socket.as_deref(), options.foreground)?;
        let (ours, theirs) = socket::pair().context(Code::Internal, "socketpair")?;
        let [before, after] = limits::exec_affinity(options.process.exec_cpu_affinity.as_ref())?;
        let (cloned, moved) = self.place.clone_into(self.state.pid)?;
        timeline::mark("clone");
        match cloned {
            Cloned::Child => {
                drop(ours);
                let (namespaces, own_user) = (self.namespaces, self.own_user);
                let (target, entrances) = (self.target.take(), std::mem::take(&mut self.place.entrances));
                let waits = options.tells.anybody();
                let told = launch.listener.is_some().then(|| self.told());
                let child = Child {
                    namespaces,
                    target,
                    entrances,
                    own_user,
                    streams,
                    terminal,
                    before,
                    after,
                    waits,
                    told,
                    moved,
                };
                child.run(&mut launch, theirs)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                drop(terminal);
                self.filters.save();
                match parent(options, &self.wasm, pid, &pidfd, &ours) {
                    Ok(terminal) => Ok(Executed { pid, pidfd, terminal }),
                    Err(error) => {
                        end(&pidfd);
                        Err(error)
                    }
                }
            }
        }
    }

    /// What a seccomp listener is told of the container.
    fn told(&self) -> Vec<u8> {
        let State { id, bundle, pid, .. } = &self.state;
        super::state::json_for_hooks(&self.spec, id, bundle, "running", *pid)
    }

    /// Checks that a further process can be started now.
    pub(crate) fn check(&self) -> Result<()> {
        open_process(&self.state)?;
        refuse_paused(&self.state, false)
    }
}

/// The container's process, which has to be alive.
fn open_process(state: &State) -> Result<OwnedFd> {
    let stopped = || Error::new(Code::WrongState, state.id.as_str()).says("cannot exec in a stopped container");
    if state.stage != super::store::Stage::Created {
        return Err(stopped());
    }
    super::delete::open(state).map_err(|_| stopped())
}

fn refuse_paused(state: &State, ignore_paused: bool) -> Result<()> {
    if !ignore_paused && state.cgroup.frozen() {
        return Err(Error::new(Code::WrongState, state.id.as_str())
            .says("cannot exec in a paused container (use --ignore-paused to override)"));
    }
    Ok(())
}

/// Namespaces of the container that are not the caller's own.
fn shared_namespaces(spec: &Spec, pid: i32) -> Result<u64> {
    let mut flags = 0;
    let Some(linux) = &spec.linux else { return Ok(0) };
    for namespace in &linux.namespaces {
        if namespace.r#type == NamespaceType::User {
            let theirs = rustix::fs::stat(format!("/proc/{pid}/ns/user")).context(Code::NamespaceJoin, "user")?;
            let ours = rustix::fs::stat("/proc/self/ns/user").context(Code::NamespaceJoin, "user")?;
            if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
                continue;
            }
        }
        flags |= flag(namespace.r#type);
    }
    Ok(flags)
}

/// Where the new process goes.
#[derive(Debug)]
struct Place {
    v2: Option<Directory>,
    entrances: Vec<OwnedFd>,
}

impl Place {
    fn find(mut cgroup: Cgroup, wanted: &[SubGroup]) -> Result<Self> {
        for group in wanted {
            cgroup.descend(group)?;
        }
        let entrances = cgroup.entrances()?;
        Ok(Self { v2: cgroup.v2.take(), entrances })
    }

    /// Makes the process in its cgroup; true if it could not begin there and was moved near `first`, the container's first process.
    fn clone_into(&self, first: i32) -> Result<(Cloned, bool)> {
        let Some(group) = &self.v2 else {
            return clone_process(&CloneOptions::default()).map(|cloned| (cloned, false)).doing(
                Code::Clone,
                "clone3",
                "",
            );
        };
        match clone_process(&CloneOptions { flags: 0, cgroup: Some(group.fd.as_fd()) }) {
            // The container has divided its cgroup.
            Err(Errno::BUSY | Errno::OPNOTSUPP) => {}
            other => return other.map(|cloned| (cloned, false)).context(Code::Clone, &group.path),
        }
        let cloned = clone_process(&CloneOptions::default()).doing(Code::Clone, "clone3", "")?;
        if let Cloned::Parent { pid, pidfd } = &cloned {
            group.join_near(*pid, first).inspect_err(|_| end(pidfd))?;
        }
        Ok((cloned, true))
    }
}

/// Ends a process whose start failed.
pub(super) fn end(pidfd: &OwnedFd) {
    let _ = hull_sys::signal::send_by_pidfd(pidfd.as_fd(), 9);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// The runtime's side of the new process' start; the terminal's master, if it stays here.
fn parent(
    options: &ExecOptions,
    wasm: &wasm::config::Config,
    pid: i32,
    pidfd: &OwnedFd,
    sync: &OwnedFd,
) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    loop {
        match sync::receive(sync)? {
            Message::WantsMaps => {
                // The parent's turn to set what the process cannot set itself.
                set_outside(pid, &options.process)?;
                sync::send(sync, &Message::Go { pid, set_groups: true }).context(Code::Internal, "sync")?;
            }
            Message::Terminal(master) => terminal = Some(master),
            Message::Module(file) => wasm::cache::answer(wasm, file, sync)?,
            Message::Ready => {
                options.tells.about(pid, Some(pidfd))?;
                sync::send(sync, &Message::Start).context(Code::Internal, "sync")?;
            }
            Message::Failed(error) => return Err(error),
            Message::End => return Ok(terminal),
            _ => return Err(Error::new(Code::Internal, "sync").says("unexpected message")),
        }
    }
}

/// The new process.
struct Child {
    namespaces: u64,
    target: Option<OwnedFd>,
    entrances: Vec<OwnedFd>,
    own_user: bool,
    streams: Option<[OwnedFd; 3]>,
    terminal: Option<TerminalTo>,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    /// Whether the caller has to learn of the process before the program runs.
    waits: bool,
    /// The container's state for a seccomp listener, which gets it with this process' id.
    told: Option<Vec<u8>>,
    /// Whether it began outside the container's cgroup, and is being moved by its parent.
    moved: bool,
}

impl Child {
    fn run(mut self, launch: &mut Launch<'_>, sync: OwnedFd) -> ! {
        crate::log::forget_file();
        if let Err(error) = self.place_streams() {
            let _ = sync::send(&sync, &Message::Failed(error));
            exit(255)
        }
        let error = match self.keep_only_own(launch, &sync).and_then(|()| self.setup(launch, &sync)) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let _ = sync::send(&sync, &Message::Failed(error));
        exit(255)
    }

    fn place_streams(&mut self) -> Result<()> {
        for (stream, number) in self.streams.take().into_iter().flatten().zip(0..) {
            hull_sys::fd::place(stream.as_fd(), number).doing(
                Code::Descriptors,
                &number.to_string(),
                "standard streams",
            )?;
        }
        Ok(())
    }

    fn keep_only_own(&self, launch: &Launch<'_>, sync: &OwnedFd) -> Result<()> {
        let mut keep = vec![sync.as_raw_fd()];
        keep.extend(self.target.as_ref().map(AsRawFd::as_raw_fd));
        keep.extend(self.entrances.iter().map(AsRawFd::as_raw_fd));
        if let Some(TerminalTo::Socket(socket)) = &self.terminal {
            keep.push(socket.as_raw_fd());
        }
        keep.extend(launch.raw_fds());
        keep.extend(timeline::raw_fd());
        hull_sys::fd::close_except(&mut keep).context(Code::Descriptors, "close_range")
    }

    fn setup(self, launch: &mut Launch<'_>, sync: &OwnedFd) -> Result<std::convert::Infallible> {
        if let Some(mask) = &self.before {
            sched::set_affinity(mask).doing(
                Code::Scheduling,
                "process.execCPUAffinity.initial",
                "initial CPU affinity",
            )?;
        }
        for entrance in &self.entrances {
            files::write_once(entrance, b"0").doing(Code::CgroupJoin, "tasks", "of version 1")?;
        }
        drop(self.entrances);
        // The caller's CPU affinity has nothing to do with the container's CPUs.
        let _ = sched::set_affinity(&limits::all_cpus());
        if let Some(mask) = &self.after {
            sched::set_affinity(mask).doing(Code::Scheduling, "process.execCPUAffinity.final", "final CPU affinity")?;
        }
        let process = launch.process;
        // The parent answers once it has moved this process: no program of the container may run outside its limits.
        let needs_parent = self.moved
            || limits::any_raised(&process.rlimits)
            || process.oom_score_adj.is_some()
            || self.told.is_some();
        if needs_parent {
            sync::send(sync, &Message::WantsMaps).context(Code::Internal, "sync")?;
            let (pid, _) = sync::await_go(sync)?;
            if let (Some(listener), Some(state)) = (&mut launch.listener, &self.told) {
                listener.complete(state, pid);
            }
        }
        // Here and not in the parent: only the process that opened its attribute files may write them. And not later: the container's procfs
        // must not be trusted with the write.
        let labels = Labels::of(None, process)?;
        if let Some(target) = self.target {
            join(&target, self.namespaces)?;
        }
        if self.own_user {
            // The user's own ids are set later; until then the process has those of root in the namespace, if it has any.
            let root = (rustix::fs::Gid::ROOT, rustix::fs::Uid::ROOT);
            let _ = rustix::thread::set_thread_res_gid(root.0, root.0, root.0);
            let _ = rustix::thread::set_thread_res_uid(root.1, root.1, root.1);
        }
        match rustix::process::setsid() {
            Ok(_) | Err(Errno::PERM) => {}
            Err(e) => return Err(Error::os(Code::Identity, "session", e)),
        }
        if let Some(to) = &self.terminal {
            let terminal = console::open_on_host(process)?;
            console::send(to, &terminal.master, sync)?;
            console::attach(terminal)?;
        }
        launch.choose_handler(sync)?;
        launch.settle()?;
        let start = || if self.waits { await_start(sync) } else { Ok(()) };
        let armed = if launch.filters_early() {
            start()?;
            launch.prepare(&labels)?
        } else {
            let armed = launch.prepare(&labels)?;
            start()?;
            armed
        };
        Err(launch.execute(&armed, || Ok(())))
    }
}

fn await_start(sync: &OwnedFd) -> Result<()> {
    sync::send(sync, &Message::Ready).context(Code::Internal, "sync")?;
    match sync::receive(sync)? {
        Message::Start => Ok(()),
        _ => exit(255),
    }
}

/// Joins all namespaces at once; where one belongs to another user namespace, one after the other.
fn join(target: &OwnedFd, flags: u64) -> Result<()> {
    let flags = flags & !ns::PID;
    if flags == 0 {
        return Ok(());
    }
    match ns::setns(target.as_fd(), flags) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => {}
        Err(e) => return Err(Error::os(Code::NamespaceJoin, "pidfd", e).says("of the container")),
    }
    // The mount namespace last: joining it changes the root directory.
    let kinds = [ns::IPC, ns::UTS, ns::NETWORK, ns::CGROUP, ns::TIME];
    let mut refused = 0;
    for kind in kinds.into_iter().filter(|k| flags & k != 0) {
        match ns::setns(target.as_fd(), kind) {
            Ok(()) => {}
            Err(Errno::PERM) => refused |= kind,
            Err(e) => return Err(Error::os(Code::NamespaceJoin, "pidfd", e).says("of the container")),
        }
    }
    for kind in [flags & ns::USER, refused, flags & ns::MOUNT].into_iter().filter(|k| *k != 0) {
        ns::setns(target.as_fd(), kind).doing(Code::NamespaceJoin, "pidfd", "of the container")?;
    }
    Ok(())
}
