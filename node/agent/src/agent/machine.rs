//! What the machine has: processors, memory, disk.

use super::admission::{Capacity, Free};
use crate::config::Config;
use crate::disk::DiskStore;

/// A figure of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// All memory.
pub(super) fn memory_bytes() -> u64 {
    meminfo("MemTotal")
}

/// Processors.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What is free now.
pub(super) fn free(disks: &DiskStore) -> Free {
    // Unreadable does not mean empty: the system calls on the disk will fail with the real cause.
    Free { memory_bytes: meminfo("MemAvailable"), disk_bytes: disks.free_bytes().unwrap_or(u64::MAX) }
}

/// What workspaces may have.
pub(super) fn capacity(config: &Config) -> Capacity {
    let usable = memory_bytes().saturating_sub(config.reserved_memory_bytes);
    let disk =
        rustix::fs::statvfs(&config.home).map(|stat| stat.f_blocks.saturating_mul(stat.f_frsize)).unwrap_or(u64::MAX);
    Capacity {
        memory_bytes: usable / 100 * u64::from(config.memory_overcommit_percent),
        largest_memory_bytes: usable,
        min_free_disk_bytes: config.min_free_disk_bytes,
        min_free_memory_bytes: config.reserved_memory_bytes,
        disk_bytes: disk,
        instances: config.max_instances,
    }
}
