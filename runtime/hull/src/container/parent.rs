//! The runtime's side of a starting process: makes it, and does what it cannot do for itself.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::process::{CloneOptions, Cloned, clone_process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::bundle::Bundle;
use super::create::{Undo, equip};
use super::filters::Filters;
use super::plan::Plan;
use super::store::{self, Entry, State};
use super::sync::{self, Message};
use super::{idmap, init, maps, namespaces, netdev};
use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::process::{limits, wasm};
use crate::procfs::Proc;
use crate::rootfs::mounts::Prepared;
use crate::spec::{NamespaceType, Process};
use crate::{hooks, socket};

/// The runtime's end of the conversation with a starting process.
pub(super) struct Parent {
    pub(super) sync: OwnedFd,
    mounts: Vec<Prepared>,
    wasm: wasm::config::Config,
    /// The intermediate process, until it is gone.
    stage: Option<(i32, OwnedFd)>,
    /// The container's process, 0 until it exists.
    pub(super) pid: i32,
    /// Whether it was born into a new user namespace and waits for its id maps.
    maps_due: bool,
    /// The terminal's master, where the runtime keeps it.
    pub(super) terminal: Option<OwnedFd>,
    set_groups: bool,
}

impl Parent {
    /// Makes the process, or the intermediate one, in its cgroup of version 2; also returns the process' handle.
    pub(super) fn spawn(
        plan: Plan<'_>,
        wasm: wasm::config::Config,
        cgroup: Option<&Cgroup>,
    ) -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = socket::pair().context(Code::Internal, "socketpair")?;
        let between = plan.namespaces.needs_stage();
        let flags = if between { 0 } else { plan.namespaces.at_birth() };
        let cgroup = cgroup.and_then(Cgroup::clone_target);
        match clone_process(&CloneOptions { flags, cgroup }).map_err(|errno| clone_error(errno, cgroup.is_some()))? {
            Cloned::Child => {
                drop(ours);
                if between { init::stage_main(plan, theirs) } else { init::init_main(plan, theirs) }
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let stage = if between { Some((pid, pidfd.try_clone().map_err(no_handle)?)) } else { None };
                let pid = if between { 0 } else { pid };
                let maps_due = !between && plan.namespaces.makes(NamespaceType::User);
                let parent = Self {
                    sync: ours,
                    mounts: plan.mounts,
                    wasm,
                    stage,
                    pid,
                    maps_due,
                    terminal: None,
                    set_groups: true,
                };
                Ok((parent, pidfd))
            }
        }
    }

    /// Gives the process what it is waiting for, or soon will: its id maps, then its cgroups, which are made while it makes
    /// its namespaces and mounts.
    pub(super) fn equip(&mut self, bundle: &Bundle, record: &cgroup::Record, undo: &mut Undo) -> Result<()> {
        if self.maps_due {
            self.set_groups = maps::write(self.pid, bundle.linux())?;
            self.go()?;
        }
        let Some(cgroup) = &mut undo.cgroup else { return Ok(()) };
        cgroup.make_rest(record)?;
        equip(cgroup, bundle)?;
        if cgroup.v1.is_empty() {
            return Ok(());
        }
        self.say(&Message::Cgroups(cgroup.entrances()?))
    }

    /// Answers until the process is ready.
    pub(super) fn converse(
        &mut self,
        bundle: &Bundle,
        state: &mut State,
        undo: &mut Undo,
        filters: &mut Filters,
    ) -> Result<()> {
        let linux = bundle.linux();
        let process = bundle.spec.process.as_ref();
        if self.pid != 0 {
            self.adopt(process, state, &undo.entry)?;
            self.place(bundle, state, undo)?;
        }
        filters.deliver(linux.seccomp.as_ref())?;
        loop {
            match self.receive(undo)? {
                Message::Init { pid, pidfd } => {
                    self.pid = pid;
                    if let Some((_, stage)) = self.stage.take() {
                        let _ = waitid(WaitId::PidFd(stage.as_fd()), WaitIdOptions::EXITED);
                    }
                    undo.pidfd = Some(pidfd);
                    self.adopt(process, state, &undo.entry)?;
                    self.go()?;
                    self.place(bundle, state, undo)?;
                }
                Message::NamespacesReady | Message::MountsReady | Message::Module(_) | Message::Ready
                    if self.pid == 0 =>
                {
                    return Err(Error::new(Code::Internal, "sync").says("message of a process that was not told of"));
                }
                Message::WantsMaps => {
                    let pid = self.stage.as_ref().map_or(self.pid, |s| s.0);
                    self.set_groups = maps::write(pid, linux)?;
                    self.go()?;
                }
                Message::NamespacesReady => {
                    self.runtime_part(bundle, state, undo)?;
                    self.go()?;
                }
                Message::MountsReady => {
                    undo.hooks_began = true;
                    run_creation_hooks(bundle, &state.id, self.pid)?;
                    self.go()?;
                }
                Message::Terminal(master) => self.terminal = Some(master),
                Message::Module(file) => wasm::cache::answer(&self.wasm, file, &self.sync)?,
                Message::Ready => return Ok(()),
                Message::Failed(error) => return Err(error),
                Message::End => return Err(death(undo)),
                Message::Go { .. }
                | Message::Cgroups(_)
                | Message::Moved(_)
                | Message::Start
                | Message::Compiled(_)
                | Message::Exit(_) => {
                    return Err(Error::new(Code::Internal, "sync").says("unexpected message"));
                }
            }
        }
    }

    /// The next message; the intermediate process shares its channel with the container's, so its end must be detected separately.
    fn receive(&self, undo: &Undo) -> Result<Message> {
        if let Some((_, stage)) = &self.stage {
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

    /// Sets from outside what needs the runtime's rights over a process: limits and the OOM score.
    fn adopt(&self, process: Option<&Process>, state: &mut State, entry: &Entry) -> Result<()> {
        state.pid = self.pid;
        state.start_time = store::process_stat(self.pid).map_or(0, |s| s.0);
        if state.cgroup.driver != Driver::Cgroupfs {
            // No cgroup shows yet which processes are the container's, so the journal must.
            entry.save(state)?;
        }
        let Some(process) = process else { return Ok(()) };
        set_outside(self.pid, process)
    }

    /// Has systemd move the process, which makes its namespaces and mounts meanwhile, and tells it.
    fn place(&self, bundle: &Bundle, state: &State, undo: &mut Undo) -> Result<()> {
        if state.cgroup.driver != Driver::Systemd {
            return Ok(());
        }
        let resources = bundle.linux().resources.clone().unwrap_or_default();
        let placed = cgroup::systemd::start(&state.cgroup, self.pid, &resources, &bundle.spec.annotations)
            .and_then(|cgroup| equip(undo.cgroup.insert(cgroup), bundle));
        if let Err(error) = placed {
            // A process that has ended cannot be moved: why it ended is the cause.
            return Err(self.last_words(undo).unwrap_or(error));
        }
        undo.cgroup.as_ref().map_or(Ok(()), |cgroup| self.say(&Message::Moved(cgroup.record())))
    }

    /// What the process said at its end, or how it ended, if it has.
    fn last_words(&self, undo: &Undo) -> Option<Error> {
        loop {
            let mut fds = [PollFd::new(&self.sync, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1)) {
                return None;
            }
            match sync::receive(&self.sync) {
                Ok(Message::Failed(error)) => return Some(error),
                Ok(Message::End) => return Some(death(undo)),
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Tells the process of its cgroups. When it has ended, its last words or its status say why.
    fn say(&self, message: &Message) -> Result<()> {
        match sync::send(&self.sync, message) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(e) => Err(Error::os(Code::Internal, "sync", e)),
        }
    }

    fn runtime_part(&self, bundle: &Bundle, state: &mut State, undo: &mut Undo) -> Result<()> {
        let linux = bundle.linux();
        if let Some(rdt) = &linux.intel_rdt {
            let group = super::intel_rdt::apply(rdt, &state.id, self.pid)?;
            undo.intel_rdt.clone_from(&group);
            state.intel_rdt = group;
        }
        if self.mounts.iter().any(Prepared::wants_id_map) {
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

fn clone_error(errno: Errno, into_cgroup: bool) -> Error {
    let error = Error::os(Code::Clone, "clone3", errno).says("");
    match errno {
        Errno::BUSY | Errno::OPNOTSUPP if into_cgroup => error.hint(
            "its cgroup was there before, and passes controllers on to groups below: give another linux.cgroupsPath",
        ),
        Errno::ACCESS if into_cgroup => error.hint("its cgroup is not one that this user may put processes into"),
        _ => namespaces::refused(Code::Clone, "clone3", errno),
    }
}

fn no_handle(error: std::io::Error) -> Error {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::MFILE);
    Error::os(Code::Clone, "pidfd", errno).says("handle of the process in between")
}

/// Runs the hooks that work on a container from outside. They find its mounts made, at the root's own path, and may add to them: the root is
/// changed afterwards.
pub(crate) fn run_creation_hooks(bundle: &Bundle, id: &str, pid: i32) -> Result<()> {
    let Some(h) = &bundle.spec.hooks else { return Ok(()) };
    let json = super::state::json_for_hooks(&bundle.spec, id, &bundle.path, "creating", pid);
    hooks::run("prestart", &h.prestart, &json, Some(&bundle.path), &[])?;
    hooks::run("createRuntime", &h.create_runtime, &json, Some(&bundle.path), &[])
}

/// Sets what the process cannot, or may no longer, set for itself.
pub(crate) fn set_outside(pid: i32, process: &Process) -> Result<()> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Error::new(Code::Internal, "pid").says("no process id"))?;
    limits::raise_limits(raw, &process.rlimits)?;
    if let Some(score) = process.oom_score_adj {
        let proc = Proc::open().context(Code::Scheduling, "/proc")?;
        let path = format!("{pid}/oom_score_adj");
        match proc.write(&path, score.to_string().as_bytes()) {
            Ok(()) => {}
            Err(e) => {
                let same = proc.read(&path, 64).is_ok_and(|now| now.trim() == score.to_string());
                if !same {
                    return Err(Error::os(Code::Scheduling, "process.oomScoreAdj", e)
                        .says(format!("oom_score_adj to {score}"))
                        .hint("lowering it needs CAP_SYS_RESOURCE in the initial user namespace"));
                }
            }
        }
    }
    Ok(())
}

/// The reason, when the process ended without a message.
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
    let error = Error::new(Code::InitDied, undo.entry.id.as_str()).says(text);
    let killed_by_memory = undo.cgroup.as_ref().is_some_and(Cgroup::had_oom_kill);
    if killed_by_memory {
        error.hint("it ran out of memory: linux.resources.memory.limit is too small to start")
    } else {
        error
    }
}

/// Lets a created container's process run its program; the answer is the end of the channel (by execve) or an error.
pub(crate) fn release(sync: &OwnedFd, id: &str) -> Result<()> {
    let sent = match sync::send(sync, &Message::Start) {
        Ok(()) => true,
        // It is gone, and may have sent the reason.
        Err(Errno::PIPE | Errno::CONNRESET) => false,
        Err(e) => return Err(Error::os(Code::Internal, "sync", e)),
    };
    match sync::receive(sync)? {
        Message::End if sent => Ok(()),
        Message::End => Err(Error::new(Code::WrongState, id).says("cannot start a container that has stopped")),
        Message::Failed(error) => Err(error),
        _ => Err(Error::new(Code::Internal, "sync").says("unexpected message")),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    /// The container's process shares the channel with the intermediate one and could be faster: without this order a container could be
    /// recorded with process id 0.
    #[test]
    fn a_process_may_not_speak_before_it_was_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::create(dir.path().to_str().unwrap(), "early").unwrap();
        let mut undo = Undo { entry, cgroup: None, pidfd: None, intel_rdt: None, hooks_began: false };
        let bundle = Bundle { path: String::new(), spec: crate::spec::Spec::default(), json: Vec::new() };
        let (ours, theirs) = socket::pair().unwrap();
        let own = rustix::process::getpid();
        let parent_of = |sync| Parent {
            sync,
            mounts: Vec::new(),
            wasm: <_>::default(),
            stage: None,
            pid: 0,
            maps_due: false,
            terminal: None,
            set_groups: true,
        };
        let mut state = State::default();
        sync::send(&theirs, &Message::Ready).unwrap();
        let mut parent = parent_of(ours);
        let mut filters = Filters::below("");
        let refused = parent.converse(&bundle, &mut state, &mut undo, &mut filters);
        assert_eq!(refused.unwrap_err().code(), Code::Internal);
        let pidfd = pidfd_open(own, PidfdFlags::empty()).unwrap();
        sync::send(&theirs, &Message::Init { pid: own.as_raw_pid(), pidfd }).unwrap();
        sync::send(&theirs, &Message::Ready).unwrap();
        parent.converse(&bundle, &mut state, &mut undo, &mut filters).unwrap();
        assert_eq!((parent.pid, state.pid), (own.as_raw_pid(), own.as_raw_pid()));
        assert_eq!(sync::await_go(&theirs).unwrap().0, own.as_raw_pid());
    }
}
