//! Limits of version 1 hierarchies.

use rustix::fs::CWD;
use rustix::io::Errno;

use super::Directory;
use crate::error::{Code, Error, Result};
use crate::files;
use crate::log;
use crate::spec::resources::{BlockIo, Cpu, Memory, Network, Resources, ThrottleDevice};

/// Writes every limit that belongs to this hierarchy.
pub(super) fn apply(dir: &Directory, resources: &Resources) -> Result<()> {
    for controller in &dir.controllers {
        match controller.as_str() {
            "cpu" => resources.cpu.as_ref().map_or(Ok(()), |cpu| apply_cpu(dir, cpu))?,
            "cpuset" => resources.cpu.as_ref().map_or(Ok(()), |cpu| apply_cpuset(dir, cpu))?,
            "memory" => resources.memory.as_ref().map_or(Ok(()), |memory| apply_memory(dir, memory))?,
            "blkio" => resources.block_io.as_ref().map_or(Ok(()), |io| apply_blkio(dir, io))?,
            "hugetlb" => {
                for limit in &resources.hugepage_limits {
                    let size = &limit.page_size;
                    dir.write(&format!("hugetlb.{size}.limit_in_bytes"), limit.limit)?;
                    dir.write_if_there(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit)?;
                }
            }
            "net_cls" | "net_prio" => {
                resources.network.as_ref().map_or(Ok(()), |network| apply_network(dir, controller, network))?;
            }
            "rdma" => {
                for (device, limit) in &resources.rdma {
                    dir.write("rdma.max", super::rdma_line(device, limit))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the limit of tasks; separate from the others because the runtime itself still has to fork inside.
pub(super) fn apply_pids(dir: &Directory, resources: &Resources) -> Result<()> {
    match resources.pids.as_ref().and_then(|p| p.limit) {
        Some(limit) if dir.controllers.iter().any(|c| c == "pids") => dir.write("pids.max", super::max_pids(limit)),
        _ => Ok(()),
    }
}

fn apply_cpu(dir: &Directory, cpu: &Cpu) -> Result<()> {
    // An idle group has no shares to set; it must leave the idle state before shares are set.
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", idle)?;
    }
    if let Some(shares) = cpu.shares.filter(|s| *s != 0 && cpu.idle != Some(1)) {
        dir.write("cpu.shares", shares)?;
        // The kernel clamps silently: say so.
        let got: u64 = dir.read_number("cpu.shares")?;
        if got != shares {
            let text = format!("cpu.shares of {}: asked for {shares}, the kernel allows {got}", dir.path);
            return Err(Error::new(Code::CgroupWrite, format!("{}/cpu.shares", dir.path)).says(text));
        }
    }
    apply_rt(dir, cpu)?;
    let (period, quota) = (cpu.period.filter(|p| *p != 0), cpu.quota.filter(|q| *q != 0));
    // Burst may not exceed quota at any moment: lowered first, raised last.
    let burst_first = cpu.burst.filter(|_| quota.is_some() && cpu.burst == Some(0));
    if let Some(burst) = burst_first {
        dir.write("cpu.cfs_burst_us", burst)?;
    }
    let mut period_left = period;
    if let Some(value) = period {
        match dir.try_write("cpu.cfs_period_us", value) {
            Ok(()) => period_left = None,
            // The present quota may not fit the new period: then the quota is written first.
            Err(Errno::INVAL) if quota.is_some() => {}
            Err(e) => return Err(dir.error("cpu.cfs_period_us", &value.to_string(), e)),
        }
    }
    if let Some(value) = quota {
        dir.write("cpu.cfs_quota_us", value)?;
        if let Some(period) = period_left {
            dir.write("cpu.cfs_period_us", period)?;
        }
    }
    if let Some(burst) = cpu.burst.filter(|_| burst_first.is_none()) {
        dir.write("cpu.cfs_burst_us", burst)?;
    }
    Ok(())
}

fn apply_rt(dir: &Directory, cpu: &Cpu) -> Result<()> {
    let period = cpu.realtime_period.filter(|p| *p != 0);
    let runtime = cpu.realtime_runtime.filter(|r| *r != 0);
    let set_period = || period.map_or(Ok(()), |value| dir.write("cpu.rt_period_us", value));
    let set_runtime = || runtime.map_or(Ok(()), |value| dir.write("cpu.rt_runtime_us", value));
    // A period must not be below the present runtime, nor a runtime above the present period.
    if set_period().is_ok() {
        set_runtime()
    } else {
        set_runtime()?;
        set_period()
    }
}

fn apply_cpuset(dir: &Directory, cpu: &Cpu) -> Result<()> {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            dir.write(file, value)?;
        }
    }
    Ok(())
}

fn apply_memory(dir: &Directory, memory: &Memory) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    const KERNEL: &str = "memory.kmem.limit_in_bytes";
    let limit = memory.limit.filter(|l| *l != 0);
    let mut swap = memory.swap.filter(|s| *s != 0);
    if swap == Some(-1) && !dir.has(SWAP) {
        swap = None;
    }
    if limit == Some(-1) && swap.is_none() && dir.has(SWAP) {
        // Memory cannot be unlimited while the sum of memory and swap is limited.
        swap = Some(-1);
    }
    // The sum may never be below the limit: raise it first, lower it last.
    let swap_first = match (limit, swap) {
        (Some(_), Some(swap)) => {
            swap == -1 || dir.read_number::<u64>(SWAP).is_ok_and(|now| u64::try_from(swap).is_ok_and(|new| now < new))
        }
        _ => false,
    };
    let set_limit = || limit.map_or(Ok(()), |value| dir.write(LIMIT, value));
    let set_swap = || swap.map_or(Ok(()), |value| dir.write(SWAP, value));
    if swap_first {
        set_swap()?;
        set_limit()?;
    } else {
        set_limit()?;
        set_swap()?;
    }
    if let Some(value) = memory.reservation.filter(|r| *r != 0) {
        dir.write("memory.soft_limit_in_bytes", value)?;
    }
    if let Some(value) = memory.kernel.filter(|k| *k != 0) {
        dir.write(KERNEL, value)?;
        // Kernels from 5.16 on accept every value and store none.
        if value > 0 && dir.read_number::<u64>(KERNEL).is_ok_and(|now| now > value.unsigned_abs()) {
            log::warn("linux.resources.memory.kernel has no effect: this kernel has no such limit any more");
        }
    }
    if let Some(value) = memory.kernel_tcp.filter(|k| *k != 0) {
        dir.write("memory.kmem.tcp.limit_in_bytes", value)?;
    }
    if let Some(value) = memory.use_hierarchy {
        dir.write("memory.use_hierarchy", u8::from(value))?;
    }
    if memory.disable_oom_killer == Some(true) {
        dir.write("memory.oom_control", 1)?;
    }
    if let Some(value) = memory.swappiness {
        if value > 100 {
            let text = format!("memory.swappiness {value}: must be from 0 to 100");
            return Err(Error::invalid("linux.resources.memory.swappiness", text));
        }
        dir.write("memory.swappiness", value)?;
    }
    Ok(())
}

fn apply_blkio(dir: &Directory, io: &BlockIo) -> Result<()> {
    let weight_file = if dir.has("blkio.weight") { "blkio.weight" } else { "blkio.bfq.weight" };
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        dir.write(weight_file, weight)?;
    }
    if let Some(weight) = io.leaf_weight.filter(|w| *w != 0) {
        dir.write("blkio.leaf_weight", weight)?;
    }
    for device in &io.weight_device {
        let file = if weight_file == "blkio.weight" { "blkio.weight_device" } else { "blkio.bfq.weight_device" };
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            dir.write(file, format!("{}:{} {weight}", device.major, device.minor))?;
        }
        if let Some(weight) = device.leaf_weight.filter(|w| *w != 0) {
            dir.write("blkio.leaf_weight_device", format!("{}:{} {weight}", device.major, device.minor))?;
        }
    }
    let throttle = |file: &str, devices: &[ThrottleDevice]| -> Result<()> {
        devices.iter().try_for_each(|d| dir.write(file, format!("{}:{} {}", d.major, d.minor, d.rate)))
    };
    throttle("blkio.throttle.read_bps_device", &io.throttle_read_bps_device)?;
    throttle("blkio.throttle.write_bps_device", &io.throttle_write_bps_device)?;
    throttle("blkio.throttle.read_iops_device", &io.throttle_read_iops_device)?;
    throttle("blkio.throttle.write_iops_device", &io.throttle_write_iops_device)
}

fn apply_network(dir: &Directory, controller: &str, network: &Network) -> Result<()> {
    if controller == "net_cls"
        && let Some(class) = network.class_id
    {
        dir.write("net_cls.classid", class)?;
    }
    if controller == "net_prio" {
        for priority in &network.priorities {
            dir.write("net_prio.ifpriomap", format!("{} {}", priority.name, priority.priority))?;
        }
    }
    Ok(())
}

/// A new cpuset has neither CPUs nor memory nodes, and accepts no process: it gets its parent's. Whoever made the groups above may have left
/// those empty too.
pub(super) fn fill_cpuset(path: &str) -> Result<(), Errno> {
    let (parent, _) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &str| files::read_at(CWD, &format!("{directory}/{file}"), 65536);
        if !read(path)?.trim_ascii().is_empty() {
            continue;
        }
        let mut value = read(parent)?;
        if value.trim_ascii().is_empty() {
            fill_cpuset(parent)?;
            value = read(parent)?;
        }
        files::write_at(CWD, &format!("{path}/{file}"), value.trim_ascii_end())?;
    }
    Ok(())
}
