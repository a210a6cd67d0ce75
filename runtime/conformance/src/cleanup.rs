//! Removes what a test or a broken runtime left on the host.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// Detaches every mount below a folder, last first.
pub(crate) fn mounts(folder: &Path) {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let ours: Vec<PathBuf> = points.map(PathBuf::from).filter(|point| point.starts_with(folder)).collect();
    for point in ours.iter().rev() {
        let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// Ends the processes and removes the folders of a container's cgroups in all hierarchies.
pub(crate) fn cgroups(id: &str) {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    let mut roots: Vec<PathBuf> = hierarchies.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    roots.push(PathBuf::from("/sys/fs/cgroup"));
    for root in roots {
        let folder = root.join("berth-test").join(id);
        if folder.is_dir() {
            remove_tree(&folder, true);
        }
    }
}

/// Kills what runs in a cgroup and removes it with its children.
pub(crate) fn remove_tree(folder: &Path, end_processes: bool) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for child in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove_tree(&child, end_processes);
    }
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        if end_processes {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // Members leave a moment after the signal.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while fs::remove_dir(folder).is_err() && folder.is_dir() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
}
