//! Creating a container: the runtime's side.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::bundle::Bundle;
use super::filters::Filters;
use super::parent::Parent;
use super::plan;
use super::store::{self, Entry, Stage, State};
use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::process::wasm;
use crate::spec::{Linux, Process, Resources};
use crate::{files, socket, timeline};

/// Options of `create` and `run`.
#[derive(Debug, Default, Clone)]
pub(crate) struct CreateOptions {
    /// Directory of the runtime's records.
    pub(crate) root: String,
    /// Container id.
    pub(crate) id: String,
    /// Bundle path.
    pub(crate) bundle: String,
    /// Configuration to use instead of the bundle's.
    pub(crate) config: Option<String>,
    /// Unix socket that gets the terminal's master.
    pub(crate) console_socket: Option<String>,
    /// Who is told of the process.
    pub(crate) tells: Tells,
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

/// What has to be undone if creation fails.
pub(super) struct Undo {
    pub(super) entry: Entry,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) intel_rdt: Option<String>,
    /// Whether creation hooks have begun: then the poststop hooks have to run.
    pub(super) hooks_began: bool,
}

impl Undo {
    fn run(self, bundle: &Bundle) {
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
        if self.hooks_began {
            super::delete::poststop(&bundle.spec, &self.entry.id, &bundle.path);
        }
    }
}

/// Creates a container; on failure nothing is left behind.
pub(crate) fn create(options: &CreateOptions) -> Result<Created> {
    let bundle = Bundle::load_protected(&options.bundle, options.config.as_deref())?;
    let process = bundle.spec.process.as_ref().ok_or_else(|| Error::invalid("process", "process is missing"))?;
    timeline::mark("config");
    let entry = Entry::create(&options.root, &options.id)?;
    let mut undo = Undo { entry, cgroup: None, pidfd: None, intel_rdt: None, hooks_began: false };
    match create_in(options, &bundle, process, &mut undo) {
        Ok((state, sync, terminal)) => {
            let (entry, pidfd) = (undo.entry, undo.pidfd);
            let pidfd = pidfd.ok_or_else(|| Error::new(Code::Internal, "pidfd").says("no process"))?;
            Ok(Created { entry, state, bundle, pidfd, sync, terminal })
        }
        Err(error) => {
            undo.run(&bundle);
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
    let mut state = first_state(options, bundle)?;
    // The journal: what follows can be cleaned up from it alone.
    undo.entry.save(&state)?;
    timeline::mark("state");
    if options.driver != Driver::Systemd {
        undo.cgroup = Some(begin_cgroup(&mut state, linux)?);
    }
    let wasm = wasm::config::Config::load(options.wasm_config.as_deref())?;
    let mut filters = Filters::delivered_below(&options.root);
    let record = undo.cgroup.as_ref().map(|_| &state.cgroup);
    let mut plan = plan::make(options, bundle, process, &undo.entry, record, &mut filters)?;
    plan.launch.wasm = wasm::Handler::of_container(&bundle.spec, process, &wasm)?;
    timeline::mark("sources");
    let (mut parent, pidfd) = Parent::spawn(plan, wasm, undo.cgroup.as_ref())?;
    undo.pidfd = Some(pidfd);
    parent.equip(bundle, &state.cgroup, undo)?;
    timeline::mark("cgroup");
    parent.converse(bundle, &mut state, undo, &mut filters)?;
    timeline::mark("init");
    if options.driver == Driver::Systemd {
        // The unit was made for the process that is in it now.
        state.cgroup = undo.cgroup.as_ref().map(Cgroup::record).unwrap_or_default();
    }
    finish(options, bundle, &mut state, parent.pid, undo)?;
    Ok((state, parent.sync, parent.terminal))
}

/// The state before anything is made; it has where the cgroups will be.
pub(super) fn first_state(options: &CreateOptions, bundle: &Bundle) -> Result<State> {
    let path = bundle.linux().cgroups_path.as_deref();
    let cgroup = match options.driver {
        Driver::Disabled => cgroup::Record { driver: Driver::Disabled, ..cgroup::Record::default() },
        Driver::Cgroupfs => cgroup::plan(&cgroup::layout::Layout::detect()?, path, &options.id)?,
        Driver::Systemd => cgroup::systemd::plan(path, &options.id)?,
    };
    let own = rustix::process::getpid().as_raw_pid();
    Ok(State {
        oci_version: bundle.spec.oci_version.clone(),
        id: options.id.clone(),
        stage: Stage::Creating,
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs()?,
        created: crate::time::now_rfc3339(),
        owner: rustix::process::getuid().as_raw(),
        boot_id: store::boot_id()?,
        creator: own,
        creator_start: store::process_stat(own).map_or(0, |s| s.0),
        cgroup,
        ..State::default()
    })
}

/// Makes the cgroup that the state plans, as far as it has to be there before the process. A user who may make none, and
/// whose configuration asks for none, goes without: what a user may has to be known before.
fn begin_cgroup(state: &mut State, linux: &Linux) -> Result<Cgroup> {
    if state.cgroup.driver == Driver::Disabled {
        return Ok(Cgroup::disabled());
    }
    if crate::rights::rule_the_host() {
        return Cgroup::begin(&state.cgroup);
    }
    let asked = linux.cgroups_path.as_deref().is_some_and(|p| !p.is_empty())
        || linux
            .resources
            .as_ref()
            .is_some_and(|r| *r != Resources { devices: r.devices.clone(), ..Resources::default() });
    match Cgroup::create(&state.cgroup) {
        Err(e) if !asked && matches!(e.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
            crate::log::debug(&format!("no cgroup for this container: {e}"));
            // On a machine with several hierarchies, only some of them may allow it.
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

fn apply_devices(cgroup: &Cgroup, resources: Option<&Resources>) -> Result<()> {
    match cgroup.apply_devices(resources) {
        // Without root the kernel itself protects devices: no nodes can be made in a user namespace.
        Err(e) if !crate::rights::rule_the_host() && matches!(e.errno(), Some(Errno::PERM | Errno::ACCESS)) => Ok(()),
        other => other,
    }
}

fn finish(options: &CreateOptions, bundle: &Bundle, state: &mut State, pid: i32, undo: &Undo) -> Result<()> {
    if let (Some(cgroup), Some(resources)) = (&undo.cgroup, &bundle.linux().resources) {
        cgroup.apply_pids(resources)?;
    }
    state.stage = Stage::Created;
    undo.entry.save(state)?;
    options.tells.about(pid, undo.pidfd.as_ref())
}

/// Who is told of a process before its program runs.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tells {
    /// File that gets the process id.
    pub(crate) pid_file: Option<String>,
    /// Unix socket that gets a pidfd of the process.
    pub(crate) pidfd_socket: Option<String>,
}

impl Tells {
    /// Whether it is anybody.
    pub(crate) fn anybody(&self) -> bool {
        self.pid_file.is_some() || self.pidfd_socket.is_some()
    }

    /// Tells them.
    pub(crate) fn about(&self, pid: i32, pidfd: Option<&OwnedFd>) -> Result<()> {
        if let Some(path) = &self.pidfd_socket {
            let pidfd = pidfd.ok_or_else(|| Error::new(Code::Internal, "pidfd").says("no process"))?;
            let socket = socket::connect(path).context(Code::Socket, path)?;
            socket::send_with_fd(&socket, b"pidfd", pidfd).context(Code::Socket, path)?;
        }
        self.pid_file.as_ref().map_or(Ok(()), |path| write_pid_file(path, pid))
    }
}

/// Writes a process id so that a reader sees either all of it or no file.
pub(crate) fn write_pid_file(path: &str, pid: i32) -> Result<()> {
    let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
    let dir = if dir.is_empty() { "/" } else { dir };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .and_then(|dir| files::publish_at(dir, name, pid.to_string().as_bytes(), Mode::from_raw_mode(0o644)))
        .doing(Code::Output, path, &format!("pid file {path}"))
}
