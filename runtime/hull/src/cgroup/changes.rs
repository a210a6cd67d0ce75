//! What an update of limits reads first: the present usage, the present values of settings that belong together, and all that it would have
//! to put back.

use super::{Cgroup, Directory, Driver};
use crate::error::{Code, Error, Result};
use crate::files;
use crate::spec::resources::{Cpu, Memory, Resources};

/// A file of a directory, and what is in it.
type Setting<'a> = (&'a Directory, &'static str, String);

/// Files of both versions that hold one value.
const SETTINGS: &[&str] = &[
    "cpu.idle",
    "cpu.shares",
    "cpu.rt_period_us",
    "cpu.rt_runtime_us",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.cfs_burst_us",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.swappiness",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "pids.max",
    "blkio.weight",
    "blkio.bfq.weight",
];

impl Cgroup {
    /// Changes limits of a running container, and the unit's where systemd made the group.
    pub(crate) fn change(&self, resources: &Resources) -> Result<()> {
        if let Some(memory) = &resources.memory {
            self.refuse_below_use(memory)?;
        }
        let mut resources = resources.clone();
        if let (Driver::Systemd, Some(unit)) = (self.driver, &self.unit) {
            if let Some(cpu) = &mut resources.cpu {
                self.complete(cpu);
            }
            super::systemd::update(unit, &resources)?;
        }
        let before = self.settings();
        self.write_all(&resources).inspect_err(|_| self.put_back(&before))
    }

    fn write_all(&self, resources: &Resources) -> Result<()> {
        self.apply(resources)?;
        self.apply_pids(resources)?;
        if resources.devices.is_empty() { Ok(()) } else { self.apply_devices(Some(resources)) }
    }

    /// The present values. What systemd made is left out: its unit would still say the new ones.
    fn settings(&self) -> Vec<Setting<'_>> {
        if self.driver == Driver::Systemd {
            return Vec::new();
        }
        let directories = self.v1.iter().chain(&self.v2);
        let all = directories.flat_map(|directory| SETTINGS.iter().map(move |file| (directory, *file)));
        all.filter_map(|(directory, file)| Some((directory, file, directory.read_text(file).ok()?))).collect()
    }

    /// An update that fails changes nothing, as far as its limits have one value each.
    fn put_back(&self, before: &[Setting<'_>]) {
        // Some may only be set after others: a limit never above that of memory and swap together.
        for _ in 0..3 {
            for (directory, file, value) in before {
                if directory.read_text(file).is_ok_and(|now| now != *value) {
                    let _ = directory.try_write(file, value);
                }
            }
        }
    }

    /// Checked before any limit is written: the kernel kills at once what is above a new limit.
    fn refuse_below_use(&self, memory: &Memory) -> Result<()> {
        if memory.check_before_update != Some(true) {
            return Ok(());
        }
        let (directory, used, with_swap) = match (self.with_controller("memory"), &self.v2) {
            (Some(v1), _) => {
                (v1, v1.read_number("memory.usage_in_bytes")?, v1.read_number("memory.memsw.usage_in_bytes").ok())
            }
            (None, Some(v2)) => {
                let used: u64 = v2.read_number("memory.current")?;
                let swapped: Option<u64> = v2.read_number("memory.swap.current").ok();
                (v2, used, swapped.map(|swapped| used.saturating_add(swapped)))
            }
            (None, None) => return Ok(()),
        };
        let refuse = |what: &str, limit: Option<i64>, used: u64| match limit.and_then(|l| u64::try_from(l).ok()) {
            Some(limit) if limit != 0 && limit < used => {
                let text = format!("rejecting {what} limit {limit} of {}: {used} bytes are used", directory.path);
                Err(Error::new(Code::CgroupWrite, directory.path.as_str()).says(text))
            }
            _ => Ok(()),
        };
        refuse("memory+swap", memory.swap, with_swap.unwrap_or(used))?;
        refuse("memory", memory.limit, used)
    }

    /// systemd sets quota and period together, and takes no weight for an idle group: what an update leaves out is read from the kernel.
    fn complete(&self, cpu: &mut Cpu) {
        if cpu.quota.is_some() != cpu.period.is_some()
            && let Some((quota, period)) = self.quota_and_period()
        {
            cpu.quota = cpu.quota.or(Some(quota));
            cpu.period = cpu.period.or(Some(period));
        }
        let idle = |directory: &Directory| directory.read_number("cpu.idle").ok();
        if cpu.idle == Some(0) && self.with_controller("cpu").or(self.v2.as_ref()).and_then(idle) == Some(0) {
            cpu.idle = None;
        }
    }

    fn quota_and_period(&self) -> Option<(i64, u64)> {
        if let Some(v1) = self.with_controller("cpu") {
            return Some((v1.read_number("cpu.cfs_quota_us").ok()?, v1.read_number("cpu.cfs_period_us").ok()?));
        }
        let text = self.v2.as_ref()?.read_text("cpu.max").ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        let quota = if quota == "max" { -1 } else { files::parse_unsigned(quota)? };
        Some((quota, files::parse_unsigned(period)?))
    }
}
