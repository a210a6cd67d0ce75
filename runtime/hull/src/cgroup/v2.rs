//! Limits of the version 2 hierarchy.

use rustix::io::Errno;

use super::Directory;
use crate::error::{Code, Error, Result};
use crate::files;
use crate::spec::resources::{BlockIo, Cpu, Memory, Resources};

/// Writes all limits; in the hybrid layout only what version 1 does not have (`extras_only`).
pub(super) fn apply(dir: &Directory, resources: &Resources, extras_only: bool) -> Result<()> {
    if !extras_only {
        if let Some(cpu) = &resources.cpu {
            apply_cpu(dir, cpu)?;
        }
        if let Some(memory) = &resources.memory {
            apply_memory(dir, memory)?;
        }
        if let Some(io) = &resources.block_io {
            apply_io(dir, io)?;
        }
        for (device, limit) in &resources.rdma {
            dir.write("rdma.max", super::rdma_line(device, limit))?;
        }
        if let Some(network) = &resources.network
            && (network.class_id.is_some() || !network.priorities.is_empty())
        {
            return Err(Error::new(Code::Unsupported, "linux.resources.network")
                .says("linux.resources.network: cgroup version 2 has no network classes")
                .hint("mark packets by the cgroup's path in nftables instead"));
        }
    }
    warn_of_idle(resources);
    for limit in &resources.hugepage_limits {
        let size = &limit.page_size;
        dir.write(&format!("hugetlb.{size}.max"), limit.limit)?;
        dir.write_if_there(&format!("hugetlb.{size}.rsvd.max"), limit.limit)?;
    }
    for (file, value) in unified(resources) {
        if file.contains('/')
            || file.starts_with("cgroup.")
                && file != "cgroup.max.depth"
                && file != "cgroup.max.descendants"
                && file != "cgroup.pressure"
        {
            let text = format!("linux.resources.unified: {file:?} is not a limit");
            return Err(Error::invalid(format!("linux.resources.unified[{file}]"), text));
        }
        for line in value.lines().filter(|l| !l.is_empty()) {
            dir.write(file, line)?;
        }
    }
    Ok(())
}

/// The files of `unified`, except the weight of an idle group, which the kernel refuses.
pub(super) fn unified(resources: &Resources) -> impl Iterator<Item = (&String, &String)> {
    let idle = resources.unified.get("cpu.idle").is_some_and(|value| value.trim() == "1");
    resources.unified.iter().filter(move |(file, _)| !(idle && *file == "cpu.weight"))
}

/// Logs that a weight is left out.
fn warn_of_idle(resources: &Resources) {
    let both = resources.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1) && cpu.shares.is_some_and(|s| s != 0));
    if both || unified(resources).count() < resources.unified.len() {
        crate::log::warn("linux.resources: unable to apply both idle and weight of the CPU: the weight is left out");
    }
}

/// Writes the limit of tasks.
pub(super) fn apply_pids(dir: &Directory, resources: &Resources) -> Result<()> {
    match resources.pids.as_ref().and_then(|p| p.limit) {
        Some(limit) => dir.write("pids.max", super::max_pids(limit)),
        None => Ok(()),
    }
}

/// Version 1 shares (2 to 262144, default 1024) as version 2 weight (1 to 10000, default 100): the formula that all runtimes use since 2025,
/// under which 1024 becomes 100.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = log2(shares);
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    let weight = 10f64.powf(exponent).ceil();
    (1..=10_000u32).find(|w| f64::from(*w) >= weight).unwrap_or(10_000).into()
}

fn log2(value: u64) -> f64 {
    u32::try_from(value).map_or(32.0, f64::from).log2()
}

/// Block weight 10 to 1000 as `io.weight` 1 to 10000.
pub(crate) fn io_weight(weight: u16) -> u64 {
    if weight == 0 { 0 } else { 1u64.saturating_add(u64::from(weight.saturating_sub(10)).saturating_mul(9999) / 990) }
}

fn apply_cpu(dir: &Directory, cpu: &Cpu) -> Result<()> {
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", idle)?;
    }
    if let Some(shares) = cpu.shares.filter(|s| *s != 0 && cpu.idle != Some(1)) {
        dir.write("cpu.weight", weight_of_shares(shares))?;
    }
    if cpu.burst == Some(0) {
        dir.write("cpu.max.burst", 0)?;
    }
    if cpu.quota.is_some_and(|q| q != 0) || cpu.period.is_some_and(|p| p != 0) {
        let period = cpu.period.filter(|p| *p != 0);
        let quota = match cpu.quota.filter(|q| *q != 0) {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            None => dir.read_text("cpu.max")?.split_whitespace().next().unwrap_or("max").to_owned(),
        };
        let line = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
        dir.write("cpu.max", line)?;
    }
    if let Some(burst) = cpu.burst.filter(|b| *b != 0) {
        dir.write("cpu.max.burst", burst)?;
    }
    if cpu.realtime_runtime.is_some_and(|r| r != 0) || cpu.realtime_period.is_some_and(|p| p != 0) {
        return Err(Error::new(Code::Unsupported, "linux.resources.cpu.realtimeRuntime")
            .says("linux.resources.cpu.realtimeRuntime and realtimePeriod: cgroup version 2 has no real-time limits"));
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            dir.write(file, value)?;
        }
    }
    Ok(())
}

/// `memory.swap.max` from the specification's sum of memory and swap.
fn swap_max(limit: Option<i64>, swap: i64) -> Result<String> {
    if swap == -1 {
        return Ok("max".to_owned());
    }
    match limit {
        Some(limit) if limit > 0 && swap >= limit => Ok(swap.saturating_sub(limit).to_string()),
        _ => {
            let field = "linux.resources.memory.swap";
            let why = "it counts memory and swap together, so it needs a limit not above it";
            Err(Error::invalid(field, format!("{field} {swap}: {why}")))
        }
    }
}

/// What the limits mean for swap: no limit of memory is none of swap either.
pub(super) fn swap_of(memory: &Memory) -> Result<Option<String>> {
    match (memory.limit, memory.swap.filter(|s| *s != 0)) {
        (Some(-1), None) => Ok(Some("max".to_owned())),
        (limit, Some(swap)) => swap_max(limit, swap).map(Some),
        (_, None) => Ok(None),
    }
}

fn apply_memory(dir: &Directory, memory: &Memory) -> Result<()> {
    let limit = memory.limit.filter(|l| *l != 0);
    if let Some(value) = swap_of(memory)? {
        match dir.try_write("memory.swap.max", &value) {
            Ok(()) => {}
            // Without swap accounting, unlimited and none are the same.
            Err(Errno::NOENT) if value == "max" || value == "0" => {}
            Err(e) => return Err(dir.error("memory.swap.max", &value, e)),
        }
    }
    if let Some(limit) = limit {
        dir.write("memory.max", super::or_max(limit))?;
    }
    if let Some(reservation) = memory.reservation.filter(|r| *r != 0) {
        dir.write("memory.low", super::or_max(reservation))?;
    }
    let refuse = |field: &str| {
        let property = format!("linux.resources.memory.{field}");
        let text = format!("{property}: cgroup version 2 does not have it");
        Error::new(Code::Unsupported, property).says(text)
    };
    if memory.kernel.is_some_and(|k| k > 0) {
        return Err(refuse("kernel"));
    }
    if memory.use_hierarchy == Some(false) {
        return Err(refuse("useHierarchy"));
    }
    if memory.kernel_tcp.is_some_and(|k| k > 0) {
        return Err(refuse("kernelTCP"));
    }
    if memory.swappiness.is_some() {
        return Err(refuse("swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(refuse("disableOOMKiller"));
    }
    Ok(())
}

fn apply_io(dir: &Directory, io: &BlockIo) -> Result<()> {
    let mut leaves = io.weight_device.iter().map(|d| d.leaf_weight).chain([io.leaf_weight]);
    if leaves.any(|weight| weight.is_some_and(|w| w != 0)) {
        return Err(Error::new(Code::Unsupported, "linux.resources.blockIO.leafWeight")
            .says("linux.resources.blockIO.leafWeight: cgroup version 2 does not have it"));
    }
    let bfq = dir.has("io.bfq.weight");
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        if bfq {
            dir.write("io.bfq.weight", weight)?;
        } else {
            dir.write("io.weight", io_weight(weight))?;
        }
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            if bfq {
                dir.write("io.bfq.weight", format!("{}:{} {weight}", device.major, device.minor))?;
            } else {
                dir.write("io.weight", format!("{}:{} {}", device.major, device.minor, io_weight(weight)))?;
            }
        }
    }
    let lists = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in lists {
        for device in devices {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            dir.write("io.max", format!("{}:{} {key}={rate}", device.major, device.minor))?;
        }
    }
    Ok(())
}

/// Turns on the controllers for the children of `dir`.
pub(super) fn enable_controllers(dir: &std::os::fd::OwnedFd) -> Result<(), Errno> {
    let there = files::read_text_at(dir, "cgroup.controllers", 4096)?;
    let on = files::read_text_at(dir, "cgroup.subtree_control", 4096)?;
    let missing: Vec<&str> = there.split_whitespace().filter(|c| !on.split_whitespace().any(|o| o == *c)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all: String = missing.iter().map(|c| format!("+{c} ")).collect();
    if files::write_at(dir, "cgroup.subtree_control", all.trim_end().as_bytes()).is_ok() {
        return Ok(());
    }
    // A controller that is not available (cpu while there are real-time tasks) must not keep the others off.
    let mut first = None;
    for controller in &missing {
        if let Err(e) = files::write_at(dir, "cgroup.subtree_control", format!("+{controller}").as_bytes()) {
            first = first.or(Some(e));
        }
    }
    match first {
        Some(e @ (Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::ROFS)) => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_in_other_runtimes() {
        for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 59), (2048, 174)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn block_weights_span_the_range() {
        assert_eq!((io_weight(10), io_weight(1000), io_weight(500)), (1, 10_000, 4950));
    }

    #[test]
    fn weights_of_leaves_are_refused() {
        use crate::spec::resources::WeightDevice;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let fd = rustix::fs::open("/proc", flags, rustix::fs::Mode::empty()).unwrap();
        let dir = Directory { name: String::new(), controllers: Vec::new(), path: "/proc".to_owned(), fd };
        let device = WeightDevice { major: 8, minor: 0, weight: None, leaf_weight: Some(100) };
        for io in [
            BlockIo { leaf_weight: Some(100), ..BlockIo::default() },
            BlockIo { weight_device: vec![device], ..BlockIo::default() },
        ] {
            assert_eq!(apply_io(&dir, &io).unwrap_err().code(), Code::Unsupported);
        }
    }

    #[test]
    fn swap_is_what_exceeds_memory() {
        assert_eq!(swap_max(Some(10), 25).unwrap(), "15");
        assert_eq!(swap_max(None, -1).unwrap(), "max");
        assert!(swap_max(None, 25).is_err());
        let memory = |limit, swap| Memory { limit, swap, ..Memory::default() };
        assert_eq!(swap_of(&memory(Some(-1), None)).unwrap().as_deref(), Some("max"));
        assert_eq!(swap_of(&memory(Some(10), None)).unwrap(), None);
    }
}
