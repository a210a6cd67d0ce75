//! What a home has in the kernel: mounts (pinned namespaces among them), interfaces, cgroups, loop devices, processes.

use std::path::Path;

use berth_node::instance::{Census, census};

use super::kill;

/// What was counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Remains {
    census: Census,
    /// Monitors and other processes of workspaces.
    processes: Vec<i32>,
}

impl Remains {
    pub fn of(home: &Path) -> Self {
        let processes = Self::processes(home).into_iter().filter(|pid| is_of_a_workspace(*pid)).collect();
        Self { census: census(home), processes }
    }

    /// Whether what is left are the disks of so many workspaces, each a loop device and its mount.
    pub fn are_disks(&self, disks: usize) -> bool {
        self.census == Census { mounts: disks, interfaces: 0, cgroups: 0, loops: disks } && self.processes.is_empty()
    }

    /// Whether the kernel still holds a disk: it lets go of a file system a moment after its last user has ended.
    pub fn holds_disks(&self) -> bool {
        self.census.mounts > 0 || self.census.loops > 0
    }

    /// Processes that were started with a path of this home.
    pub fn processes(home: &Path) -> Vec<i32> {
        let home = home.to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| command_line(*pid).contains(&home))
            .collect()
    }

    /// After a test that failed: whatever this home still has, ended.
    pub fn end(home: &Path) {
        for instance in std::fs::read_dir(home.join("run/instances")).into_iter().flatten().flatten() {
            let monitor = std::fs::read(instance.path().join("monitor.json")).unwrap_or_default();
            let info: serde_json::Value = serde_json::from_slice(&monitor).unwrap_or_default();
            // With the first process of its namespace go all others.
            if let Some(pid) = info["container_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) {
                kill(pid);
            }
        }
        for pid in Self::processes(home) {
            kill(pid);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|path| Path::new(path).starts_with(home) && Path::new(path) != home)
            .collect();
        below.reverse();
        for path in below {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn is_of_a_workspace(pid: i32) -> bool {
    let line = command_line(pid);
    line.contains("berth-init") || line.contains("/hull")
}
