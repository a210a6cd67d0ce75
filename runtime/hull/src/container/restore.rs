//! Restoring a container that was saved: its records, cgroup and root are made anew, its processes come from the image.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::bundle::Bundle;
use super::create::{CreateOptions, write_pid_file};
use super::criu;
use super::store::{self, Entry, Stage, State};
use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Code, Context, Error, Result};
use crate::rootfs::options;
use crate::rootfs::resolve::Root;
use crate::spec::Spec;

/// A container that runs again.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) entry: Entry,
    pub(crate) state: State,
    pub(crate) pidfd: OwnedFd,
}

/// Restores a container; on failure nothing is left behind.
pub(crate) fn restore(options: &CreateOptions, image: &criu::Options) -> Result<Restored> {
    let bundle = Bundle::load(&options.bundle)?;
    if options.driver == Driver::Systemd {
        return Err(Error::new(
            Code::Unsupported,
            "restore with the systemd cgroup driver: use --cgroup-manager=cgroupfs",
        ));
    }
    if bundle.spec.process.as_ref().is_some_and(|p| p.terminal) {
        return Err(Error::new(
            Code::Unsupported,
            "restore of a container with a terminal: its master cannot be handed out",
        ));
    }
    let entry = Entry::create(&options.root, &options.id)?;
    let mut made = None;
    match restore_in(options, image, &bundle, &entry, &mut made) {
        Ok((state, pidfd)) => Ok(Restored { entry, state, pidfd }),
        Err(error) => {
            if let Some(cgroup) = &made {
                let _ = cgroup.kill_all();
                let _ = cgroup.wait_empty(2000);
                let _ = cgroup.remove_all();
            }
            let _ = entry.remove();
            Err(error)
        }
    }
}

fn restore_in(
    options: &CreateOptions,
    image: &criu::Options,
    bundle: &Bundle,
    entry: &Entry,
    made: &mut Option<Cgroup>,
) -> Result<(State, OwnedFd)> {
    entry.lock()?;
    entry.save_config(&bundle.json)?;
    let linux = bundle.linux();
    let own = rustix::process::getpid().as_raw_pid();
    let record = match options.driver {
        Driver::Disabled => cgroup::Record { driver: Driver::Disabled, ..cgroup::Record::default() },
        _ => cgroup::plan(&cgroup::layout::Layout::detect()?, linux.cgroups_path.as_deref(), &options.id)?,
    };
    let mut state = State {
        oci_version: bundle.spec.oci_version.clone(),
        id: options.id.clone(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs()?,
        created: crate::time::now_rfc3339(),
        owner: rustix::process::getuid().as_raw(),
        boot_id: store::boot_id()?,
        creator: own,
        creator_start: store::process_stat(own).map_or(0, |s| s.0),
        cgroup: record,
        ..State::default()
    };
    entry.save(&state)?;
    let cgroup = if options.driver == Driver::Disabled { Cgroup::disabled() } else { Cgroup::create(&state.cgroup)? };
    let cgroup = made.insert(cgroup);
    if let Some(resources) = &linux.resources {
        cgroup.apply(resources)?;
    }
    cgroup.apply_devices(linux.resources.as_ref())?;
    prepare_root(&state.rootfs, &bundle.spec)?;
    state.pid = criu::restore(image, &bundle.spec, &bundle.path, &state.rootfs, cgroup)?;
    if let Some(resources) = &linux.resources {
        cgroup.apply_pids(resources)?;
    }
    state.start_time = store::process_stat(state.pid).map_or(0, |s| s.0);
    state.stage = Stage::Created;
    entry.save(&state)?;
    let pid = Pid::from_raw(state.pid).ok_or_else(|| Error::new(Code::Internal, "no process id"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|e| Error::os(Code::Checkpoint, "the restored process is gone", e))?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, state.pid)?;
    }
    Ok((state, pidfd))
}

/// CRIU wants the root to be a mount, and the mount points of external mounts to exist. Both are made in a mount
/// namespace of this process alone, so the host's mounts stay as they are.
fn prepare_root(rootfs: &str, spec: &Spec) -> Result<()> {
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
        spec.mounts
            .iter()
            .any(|m| at != m.destination && at.starts_with(&format!("{}/", m.destination.trim_end_matches('/'))))
    };
    for mount in &spec.mounts {
        let at = crate::rootfs::resolve::clean(&mount.destination);
        if under_mount(&at) {
            continue;
        }
        let directory = !options::parse(mount)?.bind
            || mount.source.as_deref().is_none_or(|s| {
                rustix::fs::stat(s).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
            });
        let result = if directory { root.make_dirs(&at, Mode::from_raw_mode(0o755)) } else { root.make_file(&at) };
        match result {
            Ok(_) | Err(Errno::ROFS) => {}
            Err(e) => return Err(Error::os(Code::MountTarget, at, e)),
        }
    }
    Ok(())
}
