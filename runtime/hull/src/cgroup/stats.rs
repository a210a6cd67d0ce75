//! Statistics in the form `runc events` prints, with pressure beside them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::{Cgroup, Directory};
use crate::error::{Code, Context, Result};
use crate::files;

/// One line of output.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) id: &'a str,
    pub(crate) data: Stats,
}

/// All statistics; what the machine does not have is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hugetlb: BTreeMap<String, Usage>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    psi: BTreeMap<&'static str, Pressure>,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
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
    swap: Usage,
    raw: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    current: u64,
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
}

#[derive(Debug, Default, Serialize)]
struct BlkioEntry {
    major: u64,
    minor: u64,
    op: String,
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pressure {
    some: PressureLine,
    full: PressureLine,
}

#[derive(Debug, Default, Serialize)]
struct PressureLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
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

/// Reads everything there is.
pub(crate) fn collect(cgroup: &Cgroup) -> Stats {
    let mut out = Stats::default();
    for directory in &cgroup.v1 {
        for controller in &directory.controllers {
            collect_v1(directory, controller, &mut out);
        }
    }
    if let Some(directory) = &cgroup.v2 {
        if !cgroup.hybrid() {
            collect_v2(directory, &mut out);
        }
        collect_hugetlb(directory, &mut out);
        for (name, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("io", "io.pressure")] {
            if let Some(pressure) = directory.read_text(file).ok().and_then(|t| parse_pressure(&t)) {
                out.psi.insert(name, pressure);
            }
        }
    }
    out
}

fn collect_v1(directory: &Directory, controller: &str, out: &mut Stats) {
    match controller {
        "cpu" => {
            let stat = flat(directory, "cpu.stat");
            let get = |key: &str| stat.get(key).copied().unwrap_or(0);
            out.cpu.throttling = Throttling {
                periods: get("nr_periods"),
                throttled_periods: get("nr_throttled"),
                throttled_time: get("throttled_time"),
            };
        }
        "cpuacct" => {
            out.cpu.usage.total = number(directory, "cpuacct.usage");
            out.cpu.usage.percpu = directory
                .read_text("cpuacct.usage_percpu")
                .map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect())
                .unwrap_or_default();
            // In ticks of a hundredth of a second.
            let stat = flat(directory, "cpuacct.stat");
            let ns = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(10_000_000);
            (out.cpu.usage.kernel, out.cpu.usage.user) = (ns("system"), ns("user"));
        }
        "memory" => {
            let usage = |prefix: &str| Usage {
                limit: number(directory, &format!("{prefix}.limit_in_bytes")),
                usage: number(directory, &format!("{prefix}.usage_in_bytes")),
                max: number(directory, &format!("{prefix}.max_usage_in_bytes")),
                failcnt: number(directory, &format!("{prefix}.failcnt")),
            };
            out.memory.usage = usage("memory");
            out.memory.swap = usage("memory.memsw");
            out.memory.raw = flat(directory, "memory.stat");
            out.memory.cache = out.memory.raw.get("cache").copied().unwrap_or(0);
        }
        "pids" => {
            let limit = number(directory, "pids.max");
            out.pids =
                Pids { current: number(directory, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } };
        }
        "blkio" => {
            out.blkio.io_service_bytes_recursive = blkio_v1(directory, "blkio.throttle.io_service_bytes_recursive");
            out.blkio.io_serviced_recursive = blkio_v1(directory, "blkio.throttle.io_serviced_recursive");
        }
        _ => {}
    }
}

fn blkio_v1(directory: &Directory, file: &str) -> Vec<BlkioEntry> {
    let text = directory.read_text(file).unwrap_or_default();
    let line = |line: &str| {
        let mut parts = line.split_whitespace();
        let (major, minor) = parts.next()?.split_once(':')?;
        let op = parts.next()?.to_owned();
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op,
            value: parts.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

fn collect_v2(directory: &Directory, out: &mut Stats) {
    let stat = flat(directory, "cpu.stat");
    let ns = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(1000);
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    out.cpu.usage =
        CpuUsage { total: ns("usage_usec"), percpu: Vec::new(), kernel: ns("system_usec"), user: ns("user_usec") };
    out.cpu.throttling = Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: ns("throttled_usec"),
    };
    let events = flat(directory, "memory.events");
    out.memory.usage = Usage {
        limit: number(directory, "memory.max"),
        usage: number(directory, "memory.current"),
        max: number(directory, "memory.peak"),
        failcnt: events.get("max").copied().unwrap_or(0),
    };
    out.memory.swap = Usage {
        limit: number(directory, "memory.swap.max"),
        usage: number(directory, "memory.swap.current"),
        max: number(directory, "memory.swap.peak"),
        failcnt: 0,
    };
    out.memory.raw = flat(directory, "memory.stat");
    out.memory.cache = out.memory.raw.get("file").copied().unwrap_or(0);
    let limit = number(directory, "pids.max");
    out.pids = Pids { current: number(directory, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } };
    let io = directory.read_text("io.stat").unwrap_or_default();
    for line in io.lines() {
        io_line(line, &mut out.blkio);
    }
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

fn collect_hugetlb(directory: &Directory, out: &mut Stats) {
    let Ok(dir) = rustix::fs::Dir::read_from(&directory.fd) else { return };
    for entry in dir.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(size) =
            name.strip_prefix("hugetlb.").and_then(|n| n.strip_suffix(".current")).filter(|s| !s.contains("rsvd"))
        else {
            continue;
        };
        let usage = Usage {
            usage: number(directory, &name),
            limit: number(directory, &format!("hugetlb.{size}.max")),
            ..Usage::default()
        };
        out.hugetlb.insert(size.to_owned(), usage);
    }
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut out = Pressure::default();
    for line in text.lines() {
        let mut parts = line.split_whitespace();
        let target = match parts.next()? {
            "some" => &mut out.some,
            "full" => &mut out.full,
            _ => return None,
        };
        for part in parts {
            let (key, value) = part.split_once('=')?;
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(out)
}

/// Tells when the kernel killed for lack of memory.
pub(crate) enum OomWatch {
    /// Version 1: an eventfd registered with the group, which must stay open.
    V1(OwnedFd, #[expect(dead_code, reason = "the registration lives as long as it")] OwnedFd),
    /// Version 2: the events file and the last count seen.
    V2(OwnedFd, u64),
    /// No memory controller.
    None,
}

impl OomWatch {
    pub(crate) fn new(cgroup: &Cgroup) -> Result<Self> {
        if let Some(directory) = cgroup.with_controller("memory") {
            use std::os::fd::AsRawFd as _;
            let event =
                eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(Code::CgroupRead, "eventfd")?;
            let control = rustix::fs::openat(
                &directory.fd,
                "memory.oom_control",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .with(Code::CgroupRead, || directory.path.clone())?;
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            files::write_at(&directory.fd, "cgroup.event_control", line.as_bytes())
                .with(Code::CgroupRead, || directory.path.clone())?;
            return Ok(Self::V1(event, control));
        }
        let Some(directory) = &cgroup.v2 else { return Ok(Self::None) };
        match rustix::fs::openat(&directory.fd, "memory.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                let count = oom_count(&fd);
                Ok(Self::V2(fd, count))
            }
            Err(_) => Ok(Self::None),
        }
    }

    /// What to poll.
    pub(crate) fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::V1(event, _) => Some((event.as_fd(), PollFlags::IN)),
            Self::V2(events, _) => Some((events.as_fd(), PollFlags::PRI)),
            Self::None => None,
        }
    }

    /// Whether it happened since the last time.
    pub(crate) fn happened(&mut self) -> bool {
        match self {
            Self::V1(event, _) => {
                let mut count = [0u8; 8];
                rustix::io::read(event, &mut count).is_ok()
            }
            Self::V2(events, last) => {
                let now = oom_count(events);
                std::mem::replace(last, now) < now
            }
            Self::None => false,
        }
    }
}

fn oom_count(events: &OwnedFd) -> u64 {
    let mut text = [0u8; 512];
    let n = rustix::io::pread(events, &mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(text.get(..n).unwrap_or(&[])).unwrap_or("");
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines_are_read() {
        let p = parse_pressure(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        )
        .unwrap();
        assert!((p.some.avg10 - 1.5).abs() < f64::EPSILON);
        assert_eq!(p.full.total, 7);
    }

    #[test]
    fn io_lines_are_split_by_kind() {
        let mut out = Blkio::default();
        io_line("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0", &mut out);
        assert_eq!(out.io_service_bytes_recursive.len(), 2);
        assert_eq!(out.io_serviced_recursive[1].value, 2);
    }
}
