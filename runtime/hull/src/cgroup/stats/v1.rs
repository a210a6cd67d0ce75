//! The files of version 1, one controller at a time.

use super::{BlkioEntry, Cpuset, Directory, Pids, Stats, Throttling, Usage, flat, huge_page_sizes, list, number};

pub(super) fn collect(directory: &Directory, controller: &str, out: &mut Stats) {
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
            let usage = &mut out.cpu.usage;
            usage.total = number(directory, "cpuacct.usage");
            usage.percpu = directory
                .read_text("cpuacct.usage_percpu")
                .map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect())
                .unwrap_or_default();
            let text = directory.read_text("cpuacct.usage_all").unwrap_or_default();
            (usage.percpu_user, usage.percpu_kernel) = text.lines().filter_map(usage_line).unzip();
            // In ticks of a hundredth of a second.
            let stat = flat(directory, "cpuacct.stat");
            let ns = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(10_000_000);
            (usage.kernel, usage.user) = (ns("system"), ns("user"));
        }
        "cpuset" => out.cpuset = cpuset(directory),
        "memory" => {
            let usage = |prefix: &str| Usage {
                limit: number(directory, &format!("{prefix}.limit_in_bytes")),
                usage: number(directory, &format!("{prefix}.usage_in_bytes")),
                max: number(directory, &format!("{prefix}.max_usage_in_bytes")),
                failcnt: number(directory, &format!("{prefix}.failcnt")),
            };
            out.memory.usage = usage("memory");
            out.memory.swap = usage("memory.memsw");
            out.memory.kernel = usage("memory.kmem");
            out.memory.kernel_tcp = usage("memory.kmem.tcp");
            out.memory.raw = flat(directory, "memory.stat");
            out.memory.cache = out.memory.raw.get("cache").copied().unwrap_or(0);
        }
        "pids" => out.pids = Pids::read(directory),
        "blkio" => {
            out.blkio.io_service_bytes_recursive = blkio(directory, "blkio.throttle.io_service_bytes_recursive");
            out.blkio.io_serviced_recursive = blkio(directory, "blkio.throttle.io_serviced_recursive");
        }
        "hugetlb" => {
            for size in huge_page_sizes(directory, ".usage_in_bytes") {
                let file = |name: &str| number(directory, &format!("hugetlb.{size}.{name}"));
                let (limit, usage) = (file("limit_in_bytes"), file("usage_in_bytes"));
                let usage = Usage { limit, usage, max: file("max_usage_in_bytes"), failcnt: file("failcnt") };
                out.hugetlb.insert(size, usage);
            }
        }
        _ => {}
    }
}

/// `CPU USER SYSTEM`, in nanoseconds; the first line of the file names them.
fn usage_line(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn cpuset(directory: &Directory) -> Cpuset {
    let level = directory.read_text("cpuset.sched_relax_domain_level").ok();
    Cpuset {
        cpus: list(directory, "cpuset.cpus"),
        cpu_exclusive: number(directory, "cpuset.cpu_exclusive"),
        mems: list(directory, "cpuset.mems"),
        mem_hardwall: number(directory, "cpuset.mem_hardwall"),
        mem_exclusive: number(directory, "cpuset.mem_exclusive"),
        memory_migrate: number(directory, "cpuset.memory_migrate"),
        memory_spread_page: number(directory, "cpuset.memory_spread_page"),
        memory_spread_slab: number(directory, "cpuset.memory_spread_slab"),
        memory_pressure: number(directory, "cpuset.memory_pressure"),
        sched_load_balance: number(directory, "cpuset.sched_load_balance"),
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    }
}

fn blkio(directory: &Directory, file: &str) -> Vec<BlkioEntry> {
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

#[cfg(test)]
mod tests {
    use super::usage_line;

    #[test]
    fn usage_by_mode_has_a_heading() {
        let lines = ["cpu user system", "0 14 20", "1 15 23"];
        let (user, system): (Vec<u64>, Vec<u64>) = lines.into_iter().filter_map(usage_line).unzip();
        assert_eq!((user, system), (vec![14, 15], vec![20, 23]));
    }
}
