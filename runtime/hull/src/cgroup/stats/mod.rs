//! Statistics in the shape of `runc events` (its `types/events.go`), so that callers of runc can read them.

mod pressure;
mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Cgroup, Directory};
use pressure::Pressure;

/// One line of output.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) id: &'a str,
    pub(crate) data: Stats,
}

/// All statistics; what the machine does not have is zero or left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Usage>,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Usage {
    limit: u64,
    usage: u64,
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    cache: u64,
    usage: Usage,
    /// Memory and swap together, as version 1 counts them.
    swap: Usage,
    kernel: Usage,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Usage,
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    current: u64,
    limit: u64,
}

impl Pids {
    fn read(directory: &Directory) -> Self {
        let limit = number(directory, "pids.max");
        Self { current: number(directory, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, Serialize)]
struct BlkioEntry {
    major: u64,
    minor: u64,
    op: String,
    value: u64,
}

/// Reads everything there is.
pub(crate) fn collect(cgroup: &Cgroup) -> Stats {
    let mut out = Stats::default();
    for directory in &cgroup.v1 {
        for controller in &directory.controllers {
            v1::collect(directory, controller, &mut out);
        }
    }
    if let Some(directory) = &cgroup.v2 {
        if !cgroup.hybrid() {
            v2::collect(directory, &mut out);
        }
        // In the hybrid layout too: only version 2 counts pressure, and huge pages are where no hierarchy of version 1
        // has them.
        v2::collect_hugetlb(directory, &mut out.hugetlb);
        let pressure = |file| directory.read_text(file).ok().and_then(|text| Pressure::parse(&text));
        out.cpu.psi = pressure("cpu.pressure");
        out.memory.psi = pressure("memory.pressure");
        out.blkio.psi = pressure("io.pressure");
    }
    out
}

fn number(directory: &Directory, file: &str) -> u64 {
    match directory.read_text(file) {
        // "max" is no limit, which runc prints as the largest number.
        Ok(text) => match text.trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        },
        Err(_) => 0,
    }
}

fn flat(directory: &Directory, file: &str) -> BTreeMap<String, u64> {
    let text = directory.read_text(file).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

/// The numbers of a list such as `0-2,5`.
fn list(directory: &Directory, file: &str) -> Vec<u16> {
    parse_list(&directory.read_text(file).unwrap_or_default())
}

fn parse_list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Sizes of huge pages in the names of a cgroup's files, such as `2MB` of `hugetlb.2MB.current`.
fn huge_page_sizes(directory: &Directory, end: &str) -> Vec<String> {
    let Ok(names) = rustix::fs::Dir::read_from(&directory.fd) else { return Vec::new() };
    let size = |name: &std::ffi::CStr| {
        let size = name.to_str().ok()?.strip_prefix("hugetlb.")?.strip_suffix(end)?;
        // `hugetlb.2MB.rsvd.current` is about reservations.
        (!size.contains('.')).then(|| size.to_owned())
    };
    names.flatten().filter_map(|entry| size(entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    #[test]
    fn lists_have_ranges_and_numbers() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("\n"), [0u16; 0]);
    }
}
