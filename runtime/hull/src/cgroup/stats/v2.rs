//! The files of version 2.

use std::collections::BTreeMap;

use super::{
    Blkio, BlkioEntry, CpuUsage, Cpuset, Directory, Pids, Stats, Throttling, Usage, flat, huge_page_sizes, list, number,
};

pub(super) fn collect(directory: &Directory, out: &mut Stats) {
    let stat = flat(directory, "cpu.stat");
    let ns = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(1000);
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    out.cpu.usage =
        CpuUsage { total: ns("usage_usec"), kernel: ns("system_usec"), user: ns("user_usec"), ..CpuUsage::default() };
    out.cpu.throttling = Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: ns("throttled_usec"),
    };
    // What is in force: the group's own lists may be empty, which is to have all of the parent's.
    out.cpuset = Cpuset {
        cpus: list(directory, "cpuset.cpus.effective"),
        mems: list(directory, "cpuset.mems.effective"),
        ..Cpuset::default()
    };
    let events = flat(directory, "memory.events");
    out.memory.usage = Usage {
        limit: number(directory, "memory.max"),
        usage: number(directory, "memory.current"),
        max: number(directory, "memory.peak"),
        failcnt: events.get("max").copied().unwrap_or(0),
    };
    let swap = Usage {
        limit: number(directory, "memory.swap.max"),
        usage: number(directory, "memory.swap.current"),
        ..Usage::default()
    };
    out.memory.swap = with_memory(&swap, &out.memory.usage);
    out.memory.raw = flat(directory, "memory.stat");
    out.memory.cache = out.memory.raw.get("file").copied().unwrap_or(0);
    out.pids = Pids::read(directory);
    let io = directory.read_text("io.stat").unwrap_or_default();
    for line in io.lines() {
        io_line(line, &mut out.blkio);
    }
}

/// Swap as version 1 counts it, and as callers of runc expect it on version 2 too. Two peaks have no sum.
fn with_memory(swap: &Usage, memory: &Usage) -> Usage {
    let limit = if swap.limit == u64::MAX { swap.limit } else { swap.limit.saturating_add(memory.limit) };
    Usage { limit, usage: swap.usage.saturating_add(memory.usage), ..Usage::default() }
}

fn io_line(line: &str, out: &mut Blkio) -> Option<()> {
    let mut parts = line.split_whitespace();
    let (major, minor) = parts.next()?.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let value = value.parse().ok()?;
        let (list, op) = match key {
            "rbytes" => (&mut out.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut out.io_service_bytes_recursive, "Write"),
            "rios" => (&mut out.io_serviced_recursive, "Read"),
            "wios" => (&mut out.io_serviced_recursive, "Write"),
            _ => continue,
        };
        list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
    }
    Some(())
}

pub(super) fn collect_hugetlb(directory: &Directory, out: &mut BTreeMap<String, Usage>) {
    for size in huge_page_sizes(directory, ".current") {
        let events = flat(directory, &format!("hugetlb.{size}.events"));
        let usage = Usage {
            limit: number(directory, &format!("hugetlb.{size}.max")),
            usage: number(directory, &format!("hugetlb.{size}.current")),
            failcnt: events.get("max").copied().unwrap_or(0),
            ..Usage::default()
        };
        out.insert(size, usage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines_are_split_by_kind() {
        let mut out = Blkio::default();
        io_line("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0", &mut out);
        assert_eq!(out.io_service_bytes_recursive.len(), 2);
        assert_eq!(out.io_serviced_recursive[1].value, 2);
    }

    #[test]
    fn swap_is_counted_with_memory() {
        let memory = Usage { limit: 100, usage: 40, max: 50, failcnt: 3 };
        let swap = with_memory(&Usage { limit: 10, usage: 5, ..Usage::default() }, &memory);
        assert_eq!((swap.limit, swap.usage, swap.max, swap.failcnt), (110, 45, 0, 0));
        let unlimited = Usage { limit: u64::MAX, ..Usage::default() };
        assert_eq!(with_memory(&unlimited, &memory).limit, u64::MAX);
    }
}
