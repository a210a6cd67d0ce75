//! Removes what a test or a broken runtime left on the host.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

fn mounts_below(folder: &Path) -> Option<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    Some(points.map(PathBuf::from).filter(|point| point.starts_with(folder)).collect())
}

/// Removes a bundle's folder, unless something is still mounted below it: a runtime may have left a folder of the host
/// there, and removing through such a mount would remove the host's files.
pub(crate) fn bundle(folder: &Path) {
    mounts(folder);
    if mounts_below(folder).is_some_and(|left| left.is_empty()) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Detaches every mount below a folder, last first.
pub(crate) fn mounts(folder: &Path) {
    for point in mounts_below(folder).unwrap_or_default().iter().rev() {
        let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// Ends the processes and removes the folders of a container's cgroups in all hierarchies.
pub(crate) fn cgroups(id: &str) {
    // Only the folder of this container: others work below the same parent.
    if !id.starts_with(&format!("hc-{}-", std::process::id())) {
        return;
    }
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    let mut roots: Vec<PathBuf> =
        hierarchies.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    roots.push(PathBuf::from("/sys/fs/cgroup"));
    for root in roots {
        let folder = root.join("berth-test").join(id);
        if folder.is_dir() {
            remove_tree(&folder);
        }
    }
}

/// Whether a folder is on a cgroup file system of either version.
pub(crate) fn is_cgroup(folder: &Path) -> bool {
    const CGROUP: i64 = 0x0027_e0eb;
    const CGROUP2: i64 = 0x6367_7270;
    rustix::fs::statfs(folder).is_ok_and(|file_system| [CGROUP, CGROUP2].contains(&file_system.f_type))
}

/// Kills what runs in a cgroup and removes it with its children.
fn remove_tree(folder: &Path) {
    if !is_cgroup(folder) {
        // A runtime mistook a plain folder for a hierarchy.
        let _ = fs::remove_dir_all(folder);
        return;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for child in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove_tree(&child);
    }
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    // The members leave a moment after the signal.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while fs::remove_dir(folder).is_err() && folder.is_dir() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
}
