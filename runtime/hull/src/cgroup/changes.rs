//! What an update of limits reads first: the present usage, and the present values of settings that belong together.

use super::{Cgroup, Directory, Driver};
use crate::error::{Code, Error, Result};
use crate::files;
use crate::spec::resources::{Cpu, Memory, Resources};

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
        self.apply(&resources)?;
        self.apply_pids(&resources)?;
        if resources.devices.is_empty() { Ok(()) } else { self.apply_devices(Some(&resources)) }
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
