//! Capabilities as 64-bit sets, name, personality.

use rustix::io::Errno;

use crate::raw::{check, check_int};

/// The three sets that capset(2) writes, one bit a capability.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    /// In force.
    pub effective: u64,
    /// What effective may be raised to.
    pub permitted: u64,
    /// Kept over execve for files that ask for it.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

fn high(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or(0)
}

/// Writes the caller's sets.
pub fn set_capabilities(sets: CapabilitySets) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [
        Data { effective: low(sets.effective), permitted: low(sets.permitted), inheritable: low(sets.inheritable) },
        Data { effective: high(sets.effective), permitted: high(sets.permitted), inheritable: high(sets.inheritable) },
    ];
    // SAFETY: version 3 means exactly two data elements, which is what the array holds.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Reads the caller's sets.
pub fn capabilities() -> Result<CapabilitySets, Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 writes exactly two elements.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let [a, b] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapabilitySets {
        effective: join(a.effective, b.effective),
        permitted: join(a.permitted, b.permitted),
        inheritable: join(a.inheritable, b.inheritable),
    })
}

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_int, Errno> {
    // SAFETY: the options used in this module take integers only, no pointers.
    check_int(unsafe { libc::prctl(option, a, b, 0 as libc::c_ulong, 0 as libc::c_ulong) })
}

/// Whether the kernel knows capability `number`, and if so whether the bounding set holds it.
pub fn bounding_has(number: u32) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, number.into(), 0).ok().map(|value| value == 1)
}

/// Takes a capability out of the bounding set.
pub fn bounding_drop(number: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0).map(drop)
}

/// Adds a capability to the ambient set.
pub fn ambient_raise(number: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into(), number.into()).map(drop)
}

/// Whether permitted capabilities survive the change of user id.
pub fn keep_capabilities(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// Whether other processes of the same user may trace the caller and read its `/proc` files.
pub fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

/// Sets `no_new_privs`, for ever.
pub fn set_no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Signal sent to the caller when the *thread* that made it ends; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, signal.unsigned_abs().into(), 0).map(drop)
}

/// Adopts orphaned descendants.
pub fn set_child_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(drop)
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: takes an integer only.
    check_int(unsafe { libc::personality(persona.into()) }).map(drop)
}
