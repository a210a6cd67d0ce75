//! Scheduler, CPU affinity, I/O priority, memory policy.

use rustix::io::Errno;

use crate::raw::check;

/// `struct sched_attr` without what the specification cannot express.
#[derive(Debug, Default, Clone, Copy)]
pub struct SchedAttr {
    /// `SCHED_…` number.
    pub policy: u32,
    /// `SCHED_FLAG_…` bits.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds of run time.
    pub runtime: u64,
    /// Nanoseconds of deadline.
    pub deadline: u64,
    /// Nanoseconds of period.
    pub period: u64,
}

/// sched_setattr(2) on the caller.
pub fn set_scheduler(attr: &SchedAttr) -> Result<(), Errno> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let raw = Raw {
        size: 48,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    };
    // SAFETY: the struct is 48 bytes, as its size field says, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) }).map(drop)
}

/// sched_setaffinity(2) on the caller; bit n of the byte mask is CPU n.
pub fn set_affinity(mask: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length describe the slice; the kernel takes any length.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) }).map(drop)
}

/// ioprio_set(2) on the caller.
pub fn set_io_priority(class: u16, priority: u16) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_long = 1;
    let value = libc::c_long::from(class) << 13 | libc::c_long::from(priority);
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// set_mempolicy(2) on the caller; bit n of the mask is node n.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let bits = nodes.len().checked_mul(64).ok_or(Errno::INVAL)?;
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel counts one bit less than it is told.
    let max_node = if nodes.is_empty() { 0 } else { bits.saturating_add(1) };
    // SAFETY: the mask holds as many bits as the kernel reads, or is null with length 0.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::c_long::from(mode), pointer, max_node) }).map(drop)
}
