//! Restoring a container that was saved: its records, cgroup and root are made anew, its processes come from the image.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::bundle::Bundle;
use super::create::{CreateOptions, equip, first_state};
use super::parent::run_creation_hooks;
use super::plan::{TerminalTo, terminal_target};
use super::store::{self, Entry, Stage, State};
use super::{console, criu};
use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::rootfs::options;
use crate::rootfs::resolve::Root;

/// A container that runs again.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) entry: Entry,
    pub(crate) state: State,
    pub(crate) pidfd: OwnedFd,
    /// The terminal's master, where the runtime stays in the foreground.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Restores a container; on failure nothing is left behind.
pub(crate) fn restore(options: &CreateOptions, image: &criu::Options) -> Result<Restored> {
    let bundle = Bundle::load(&options.bundle)?;
    // Otherwise CRIU would report it, after the root and the cgroup have been made.
    criu::check_image(&image.image)?;
    let entry = Entry::create(&options.root, &options.id)?;
    let mut restoring =
        Restoring { options, image, bundle: &bundle, entry: &entry, cgroup: None, terminal: None, hooks_began: false };
    match restoring.restore() {
        Ok((state, pidfd)) => {
            let terminal = restoring.terminal.take();
            Ok(Restored { entry, state, pidfd, terminal })
        }
        Err(error) => {
            if let Some(cgroup) = &restoring.cgroup {
                let _ = cgroup.kill_all();
                let _ = cgroup.wait_empty(2000);
                let _ = cgroup.remove_all();
            }
            let _ = entry.remove();
            if restoring.hooks_began {
                super::delete::poststop(&bundle.spec, &options.id, &bundle.path);
            }
            Err(error)
        }
    }
}

struct Restoring<'a> {
    options: &'a CreateOptions,
    image: &'a criu::Options,
    bundle: &'a Bundle,
    entry: &'a Entry,
    cgroup: Option<Cgroup>,
    terminal: Option<OwnedFd>,
    /// Whether creation hooks have begun: then the poststop hooks have to run.
    hooks_began: bool,
}

impl Restoring<'_> {
    fn restore(&mut self) -> Result<(State, OwnedFd)> {
        let (options, bundle, entry) = (self.options, self.bundle, self.entry);
        entry.lock()?;
        entry.save_config(&bundle.json)?;
        let process = bundle.spec.process.as_ref().ok_or_else(|| Error::invalid("process", "process is missing"))?;
        let terminal = terminal_target(process, options.console_socket.as_deref(), options.foreground)?;
        let mut state = first_state(options, bundle)?;
        entry.save(&state)?;
        // Before CRIU is started: it works in the mount namespace that this makes.
        prepare_root(&state.rootfs, bundle)?;
        let worker = self.start_in_cgroup(&mut state)?;
        entry.save(&state)?;
        let source = criu::Source { spec: &bundle.spec, bundle: &bundle.path, rootfs: &state.rootfs };
        let (mut master, hooks_began) = (None, &mut self.hooks_began);
        state.pid = worker.restore(self.image, &source, &mut |notice| {
            match (notice.what.as_str(), notice.fd) {
                // The namespaces are there, with nothing in them yet.
                ("setup-namespaces", _) => {
                    *hooks_began = true;
                    run_creation_hooks(bundle, &options.id, notice.pid)?;
                }
                ("orphan-pts-master", Some(fd)) => master = hand_out(terminal.as_ref(), fd)?,
                _ => {}
            }
            Ok(())
        })?;
        self.terminal = master;
        if let (Some(cgroup), Some(resources)) = (&self.cgroup, &bundle.linux().resources) {
            cgroup.apply_pids(resources)?;
        }
        state.start_time = store::process_stat(state.pid).map_or(0, |s| s.0);
        state.stage = Stage::Created;
        entry.save(&state)?;
        let pid = Pid::from_raw(state.pid).ok_or_else(|| Error::new(Code::Internal, "pid").says("no process id"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(
            Code::Checkpoint,
            &options.id,
            "the restored process is gone",
        )?;
        options.tells.about(state.pid, Some(&pidfd))?;
        Ok((state, pidfd))
    }

    /// Starts CRIU in the container's cgroup: what it restores is in there from the first instant.
    fn start_in_cgroup(&mut self, state: &mut State) -> Result<criu::Restorer> {
        let spec = &self.bundle.spec;
        if state.cgroup.driver == Driver::Systemd {
            let resources = self.bundle.linux().resources.clone().unwrap_or_default();
            let worker = criu::Restorer::start(spec, None)?;
            let cgroup = cgroup::systemd::start(&state.cgroup, worker.pid(), &resources, &spec.annotations)?;
            let cgroup = self.cgroup.insert(cgroup);
            state.cgroup = cgroup.record();
            equip(cgroup, self.bundle)?;
            return Ok(worker);
        }
        let disabled = state.cgroup.driver == Driver::Disabled;
        let cgroup = if disabled { Cgroup::disabled() } else { Cgroup::create(&state.cgroup)? };
        let cgroup = self.cgroup.insert(cgroup);
        equip(cgroup, self.bundle)?;
        criu::Restorer::start(spec, Some(cgroup))
    }
}

/// Passes the terminal's master on; gives it back where it is for this process.
fn hand_out(to: Option<&TerminalTo>, master: OwnedFd) -> Result<Option<OwnedFd>> {
    match to {
        Some(TerminalTo::Socket(socket)) => console::send_master(socket, &master).map(|()| None),
        Some(TerminalTo::Runtime) => console::plain_lines(&master).map(|()| Some(master)),
        None => Err(Error::new(Code::Checkpoint, "process.terminal")
            .says("the image holds a terminal, and process.terminal is false")),
    }
}

/// CRIU wants the root to be a mount, and the mount points of external mounts to exist. Both are made in a mount
/// namespace of this process alone, so the host's mounts stay as they are.
fn prepare_root(rootfs: &str, bundle: &Bundle) -> Result<()> {
    let mounts = &bundle.spec.mounts;
    hull_sys::namespace::unshare(hull_sys::namespace::MOUNT).context(Code::NamespaceCreate, "mount")?;
    let slave =
        hull_sys::mount::MountAttr { propagation: hull_sys::mount::SLAVE, recursive: true, ..Default::default() };
    hull_sys::mount::mount_setattr(CWD, c"/", &slave).context(Code::MountAttr, "/")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, rootfs, flags).context(Code::RootOpen, rootfs)?;
    let private =
        hull_sys::mount::MountAttr { propagation: hull_sys::mount::PRIVATE, recursive: true, ..Default::default() };
    hull_sys::mount::mount_setattr(tree.as_fd(), c"", &private).context(Code::MountAttr, rootfs)?;
    rustix::mount::move_mount(&tree, "", CWD, rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(Code::Mount, rootfs)?;
    let root = Root::new(
        rustix::fs::openat(&tree, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(Code::RootOpen, rootfs)?,
    );
    let under_mount = |at: &str| {
        mounts
            .iter()
            .any(|m| at != m.destination && at.starts_with(&format!("{}/", m.destination.trim_end_matches('/'))))
    };
    for mount in mounts {
        let at = crate::rootfs::resolve::clean(&mount.destination);
        if under_mount(&at) {
            continue;
        }
        let directory = !options::parse(mount)?.bind
            || mount.source.as_deref().is_none_or(|s| {
                rustix::fs::stat(crate::rootfs::mounts::source_path(s, &bundle.path))
                    .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
            });
        let result = if directory { root.make_dirs(&at, Mode::from_raw_mode(0o755)) } else { root.make_file(&at) };
        match result {
            Ok(_) | Err(Errno::ROFS) => {}
            Err(e) => return Err(Error::os(Code::MountTarget, at, e)),
        }
    }
    Ok(())
}
