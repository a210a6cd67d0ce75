//! Resource limits, scheduling, memory policy, personality.

use hull_sys::{prctl, sched};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::error::{Code, Context, Error, Result};
use crate::spec::{ExecCpuAffinity, IoPriority, Rlimit as RlimitSpec, Scheduler};
use crate::spec::{MemoryPolicy, Personality};

/// Limits by name.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

/// Checks names and doubles.
pub(crate) fn check_rlimits(limits: &[RlimitSpec]) -> Result<()> {
    for (index, limit) in limits.iter().enumerate() {
        let invalid = |field: &str, what: &str| {
            let text = format!("process.rlimits {}: {what}", limit.r#type);
            Error::invalid(format!("process.rlimits[{index}].{field}"), text)
        };
        if resource(&limit.r#type).is_none() {
            return Err(invalid("type", "not a resource limit"));
        }
        if limits.iter().take(index).any(|other| other.r#type == limit.r#type) {
            return Err(invalid("type", "given twice"));
        }
        if limit.soft > limit.hard {
            return Err(invalid("soft", "the soft limit is above the hard one"));
        }
    }
    Ok(())
}

/// The kernel's form of a limit.
fn kernel_limit(limit: &RlimitSpec) -> Option<(Resource, Rlimit)> {
    let value = |n: u64| (n != u64::MAX).then_some(n);
    let new = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
    resource(&limit.r#type).map(|resource| (resource, new))
}

/// Whether a limit is above the caller's own hard limit, with which a new process starts.
fn raises(limit: &RlimitSpec) -> bool {
    resource(&limit.r#type).is_some_and(|r| getrlimit(r).maximum.is_some_and(|own| limit.hard > own))
}

/// Whether a process that the caller makes needs [`raise_limits`].
pub(crate) fn any_raised(limits: &[RlimitSpec]) -> bool {
    limits.iter().any(raises)
}

/// Raises limits of a new process from outside, with the runtime's rights in the initial user namespace. The process sets the others itself:
/// lowering needs no rights, while a process whose ids are those of a user namespace made by somebody else can only be changed with
/// `CAP_SYS_RESOURCE`, even to the limit that it has.
pub(crate) fn raise_limits(pid: Pid, limits: &[RlimitSpec]) -> Result<()> {
    for limit in limits.iter().filter(|limit| raises(limit)) {
        let Some((resource, new)) = kernel_limit(limit) else { continue };
        prlimit(Some(pid), resource, new).map_err(|e| limit_error(limit, e))?;
    }
    Ok(())
}

/// Raises the caller's soft limit of open files where `more` of them would not fit, as engines may mount thousands of files; returns the
/// limit that the program has to get back.
pub(crate) fn make_room(more: usize) -> Option<RlimitSpec> {
    /// What the runtime has open besides.
    const OTHERS: u64 = 64;
    let own = getrlimit(Resource::Nofile);
    let (soft, hard) = (own.current?, own.maximum.unwrap_or(u64::MAX));
    if soft >= u64::try_from(more).ok()?.saturating_add(OTHERS) {
        return None;
    }
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, maximum: own.maximum }).ok()?;
    Some(RlimitSpec { r#type: "RLIMIT_NOFILE".to_owned(), soft, hard })
}

/// Sets the caller's own limits.
pub(crate) fn set_limits(limits: &[RlimitSpec]) -> Result<()> {
    for limit in limits {
        let Some((resource, new)) = kernel_limit(limit) else { continue };
        setrlimit(resource, new).map_err(|e| limit_error(limit, e))?;
    }
    Ok(())
}

fn limit_error(limit: &RlimitSpec, errno: Errno) -> Error {
    let text = format!("{} to {}:{}", limit.r#type, limit.soft, limit.hard);
    let error = Error::os(Code::Rlimit, limit.r#type.as_str(), errno).says(text);
    if errno == Errno::PERM {
        error.hint("raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace")
    } else {
        error
    }
}

/// The kernel's form of `process.scheduler`.
pub(crate) fn scheduler(spec: &Scheduler) -> Result<sched::SchedAttr> {
    let invalid = |field: &str, what: String| {
        Error::invalid(format!("process.scheduler.{field}"), format!("process.scheduler: {what}"))
    };
    let policy = match spec.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(invalid("policy", format!("policy {other:?} is not known"))),
    };
    let mut flags = 0;
    for flag in &spec.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 1,
            "SCHED_FLAG_RECLAIM" => 2,
            "SCHED_FLAG_DL_OVERRUN" => 4,
            "SCHED_FLAG_KEEP_POLICY" => 8,
            "SCHED_FLAG_KEEP_PARAMS" => 16,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 32,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 64,
            other => return Err(invalid("flags", format!("flag {other:?} is not known"))),
        };
    }
    let priority = spec.priority.unwrap_or(0);
    if priority != 0 && !matches!(policy, 1 | 2) {
        return Err(invalid("priority", format!("priority is for SCHED_FIFO and SCHED_RR, not {}", spec.policy)));
    }
    let nice = spec.nice.unwrap_or(0);
    // The kernel would silently use the nearest value that it has.
    if !(-20..=19).contains(&nice) {
        return Err(invalid("nice", format!("nice {nice} must be from -20 to 19")));
    }
    if matches!(policy, 1 | 2) && !(1..=99).contains(&priority) {
        return Err(invalid("priority", format!("priority {priority} must be from 1 to 99 for {}", spec.policy)));
    }
    let deadline = [spec.runtime, spec.deadline, spec.period];
    if deadline.iter().any(|v| v.is_some_and(|v| v != 0)) && policy != 6 {
        return Err(invalid(
            "policy",
            format!("runtime, deadline and period are for SCHED_DEADLINE, not {}", spec.policy),
        ));
    }
    Ok(sched::SchedAttr {
        policy,
        flags,
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| invalid("priority", format!("priority {priority} is negative")))?,
        runtime: spec.runtime.unwrap_or(0),
        deadline: spec.deadline.unwrap_or(0),
        period: spec.period.unwrap_or(0),
    })
}

/// Class and priority of `process.ioPriority`.
pub(crate) fn io_priority(spec: &IoPriority) -> Result<(u16, u16)> {
    let invalid = |field: &str, what: String| {
        Error::invalid(format!("process.ioPriority.{field}"), format!("process.ioPriority: {what}"))
    };
    let class = match spec.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(invalid("class", format!("class {other:?} is not known"))),
    };
    match u16::try_from(spec.priority) {
        Ok(priority) if priority <= 7 => Ok((class, priority)),
        _ => Err(invalid("priority", format!("priority {} must be from 0 to 7", spec.priority))),
    }
}

/// A list such as `0-3,7` as numbers.
pub(crate) fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut out = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = crate::files::parse_unsigned(first)?;
        let last: u32 = crate::files::parse_unsigned(last)?;
        if first > last || last > 1 << 16 {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

/// The masks of `process.execCPUAffinity` before and after the process is in its cgroup.
pub(crate) fn exec_affinity(affinity: Option<&ExecCpuAffinity>) -> Result<[Option<Vec<u8>>; 2]> {
    let Some(affinity) = affinity else { return Ok([None, None]) };
    let mask = |field: &str, list: &Option<String>| {
        list.as_deref().filter(|l| !l.is_empty()).map(|list| cpu_mask(field, list)).transpose()
    };
    Ok([mask("initial", &affinity.initial)?, mask("final", &affinity.r#final)?])
}

/// A byte mask of a CPU list.
fn cpu_mask(field: &str, text: &str) -> Result<Vec<u8>> {
    let cpus = parse_list(text).filter(|list| !list.is_empty()).ok_or_else(|| {
        let property = "process.execCPUAffinity";
        Error::invalid(format!("{property}.{field}"), format!("{property}: {text:?} is not a CPU list"))
    })?;
    let highest = cpus.iter().copied().max().unwrap_or(0);
    // The kernel wants whole longs.
    let bytes = usize::try_from(highest / 64 + 1).unwrap_or(1).saturating_mul(8);
    let mut mask = vec![0u8; bytes];
    for cpu in cpus {
        if let Some(byte) = usize::try_from(cpu / 8).ok().and_then(|i| mask.get_mut(i)) {
            *byte |= 1 << (cpu % 8);
        }
    }
    Ok(mask)
}

/// A mask of so many ones that every machine's CPUs are in it.
pub(crate) fn all_cpus() -> Vec<u8> {
    vec![0xff; 1024]
}

/// Mode with flags, and node mask, of `linux.memoryPolicy`.
pub(crate) fn memory_policy(spec: &MemoryPolicy) -> Result<(u32, Vec<u64>)> {
    let invalid = |field: &str, what: String| {
        Error::invalid(format!("linux.memoryPolicy.{field}"), format!("linux.memoryPolicy: {what}"))
    };
    let mut mode = match spec.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        other => return Err(invalid("mode", format!("invalid memory policy mode {other:?}"))),
    };
    for flag in &spec.flags {
        mode |= match flag.as_str() {
            "MPOL_F_STATIC_NODES" => 1 << 15,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            other => return Err(invalid("flags", format!("invalid memory policy flag {other:?}"))),
        };
    }
    let nodes = parse_list(spec.nodes.as_deref().unwrap_or(""))
        .ok_or_else(|| invalid("nodes", "invalid memory policy nodes: not a list of numbers".to_owned()))?;
    // As set_mempolicy(2) wants it, which says only EINVAL.
    match (spec.mode.as_str(), nodes.is_empty()) {
        ("MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE", true) => {
            return Err(invalid("nodes", format!("{} requires at least one node", spec.mode)));
        }
        ("MPOL_DEFAULT" | "MPOL_LOCAL", false) => {
            return Err(invalid("nodes", format!("{} takes no nodes", spec.mode)));
        }
        _ => {}
    }
    let highest = nodes.iter().copied().max();
    let words = highest.map_or(0, |h| usize::try_from(h / 64 + 1).unwrap_or(1));
    let mut mask = vec![0u64; words];
    for node in nodes {
        if let Some(word) = usize::try_from(node / 64).ok().and_then(|i| mask.get_mut(i)) {
            *word |= 1 << (node % 64);
        }
    }
    Ok((mode, mask))
}

/// The number of `linux.personality`.
pub(crate) fn personality(spec: &Personality) -> Result<u32> {
    if let Some(flag) = spec.flags.first() {
        let field = "linux.personality.flags";
        return Err(Error::invalid(field, format!("{field}: {flag:?}: no flag is defined")));
    }
    match spec.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => {
            let field = "linux.personality.domain";
            Err(Error::invalid(field, format!("{field} {other:?}: LINUX or LINUX32")))
        }
    }
}

/// Scheduling properties computed before the process exists.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    pub(crate) scheduler: Option<sched::SchedAttr>,
    pub(crate) io_priority: Option<(u16, u16)>,
    pub(crate) memory_policy: Option<(u32, Vec<u64>)>,
    pub(crate) personality: Option<u32>,
}

impl Scheduling {
    /// Applies all of them to the caller.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(persona) = self.personality {
            prctl::set_personality(persona).doing(Code::Scheduling, "linux.personality", "personality")?;
        }
        if let Some(attr) = &self.scheduler {
            sched::set_scheduler(attr).doing(Code::Scheduling, "process.scheduler", "scheduler")?;
        }
        if let Some((class, priority)) = self.io_priority {
            sched::set_io_priority(class, priority).doing(Code::Scheduling, "process.ioPriority", "I/O priority")?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            sched::set_memory_policy(*mode, nodes).doing(Code::Scheduling, "linux.memoryPolicy", "memory policy")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(parse_list("0-2,5").unwrap(), [0, 1, 2, 5]);
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(cpu_mask("final", "0,9").unwrap(), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert!(cpu_mask("final", "x").is_err());
    }

    #[test]
    fn unfitting_scheduler_values_are_refused() {
        let spec = Scheduler { policy: "SCHED_OTHER".into(), priority: Some(3), ..Scheduler::default() };
        assert!(scheduler(&spec).is_err());
        let spec = Scheduler { policy: "SCHED_FIFO".into(), priority: Some(3), ..Scheduler::default() };
        assert_eq!(scheduler(&spec).unwrap().policy, 1);
        assert!(scheduler(&Scheduler { priority: Some(100), ..spec.clone() }).is_err());
        assert!(scheduler(&Scheduler { nice: Some(20), ..spec }).is_err());
    }

    #[test]
    fn a_memory_policy_has_nodes_where_it_must() {
        let policy = |mode: &str, nodes: &str| {
            memory_policy(&MemoryPolicy { mode: mode.into(), nodes: Some(nodes.into()), ..MemoryPolicy::default() })
        };
        assert!(policy("MPOL_BIND", "").unwrap_err().to_string().contains("at least one node"));
        assert!(policy("MPOL_LOCAL", "0").unwrap_err().to_string().contains("no nodes"));
        assert_eq!(policy("MPOL_BIND", "0-1").unwrap(), (2, vec![3]));
        assert!(policy("MPOL_DEFAULT", "").is_ok() && policy("MPOL_PREFERRED", "").is_ok());
    }
}
