//! Which process holds a socket: only `/proc/<pid>/fd` tells.

use std::collections::BTreeMap;

/// Most processes and descriptors of one that are looked at: a workspace full of either costs only its own names.
const MAX_PROCESSES: usize = 4096;
const MAX_DESCRIPTORS: usize = 4096;

/// Pid and name of the holders of these sockets, as far as they can be seen.
pub(super) fn find(inodes: &[u32]) -> BTreeMap<u32, (u32, String)> {
    let mut found = BTreeMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MAX_PROCESSES) {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten().take(MAX_DESCRIPTORS) {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let inode =
                target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert_with(|| (pid, name(pid)));
            }
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim_end().to_owned()).unwrap_or_default()
}
