//! What a crash can leave outside the stores: mounts below the bundles, and cgroups.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::container::config::cgroup;

/// Mount points at or below `folder`, deepest first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.reverse();
    found
}

/// The kernel writes spaces and the like as octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Unmounts everything at or below `folder`.
pub(crate) fn unmount_below(folder: &Path) -> Result<(), Errno> {
    for path in mounts_below(folder) {
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Unmounts what is at one of these paths, without reading the whole table.
pub(crate) fn unmount(path: &Path) -> Result<(), Errno> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Roots of the cgroup hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split_ascii_whitespace().nth(4))
        .map(PathBuf::from)
        .collect()
}

/// Removes our cgroups that belong to none of `live`, with the processes in them.
pub(crate) fn sweep_cgroups(home: &Path, live: &BTreeSet<String>) {
    for root in hierarchies() {
        let ours = root.join(cgroup(home).trim_start_matches('/'));
        for entry in std::fs::read_dir(&ours).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_instance(&name) && !live.contains(&name) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

/// Instances have UUIDs; anything else below our folder is not ours to touch.
fn is_instance(name: &str) -> bool {
    name.len() == 36 && name.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// Removes the cgroups of one instance.
pub(crate) fn remove_cgroups(home: &Path, instance: &str) {
    for root in hierarchies() {
        remove_cgroup(&root.join(cgroup(home).trim_start_matches('/')).join(instance));
    }
}

/// Removes the folders that our cgroups were in, where none is left.
pub(crate) fn remove_empty_parents(home: &Path) {
    for root in hierarchies() {
        // Another node of the same home may have one there again.
        let _ = std::fs::remove_dir(root.join(cgroup(home).trim_start_matches('/')));
    }
}

fn remove_cgroup(path: &Path) {
    if !path.exists() {
        return;
    }
    // Only version 2 has this file.
    let _ = std::fs::write(path.join("cgroup.kill"), "1");
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    for pid in std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    if let Err(error) = std::fs::remove_dir(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a cgroup of a former workspace stays until the next sweep");
    }
}

/// Counts of kernel objects, for tests that prove that nothing is leaked.
#[must_use]
pub fn census(home: &Path) -> Census {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let prefix = crate::network::Subnets::default().named_for(home).prefix();
    let cgroups = hierarchies().into_iter().map(|root| {
        let entries =
            std::fs::read_dir(root.join(cgroup(home).trim_start_matches('/'))).into_iter().flatten().flatten();
        entries.filter(|entry| is_instance(&entry.file_name().to_string_lossy())).count()
    });
    let loops = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    Census {
        mounts: mounts_below(home).len(),
        interfaces: interfaces.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count(),
        cgroups: cgroups.sum(),
        loops: loops
            .filter(|entry| {
                let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
                backing.starts_with(&*home.to_string_lossy())
            })
            .count(),
    }
}

/// How many things of ours the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Mounts below BERTH_HOME.
    pub mounts: usize,
    /// Network interfaces.
    pub interfaces: usize,
    /// Cgroups of instances, in all hierarchies.
    pub cgroups: usize,
    /// Loop devices with a disk of ours.
    pub loops: usize,
}
